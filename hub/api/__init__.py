"""The ways into the hub: Socket.IO today."""
