"""python-socketio's server on the hub's Engine.IO server, with its faults mended; nowhere else is that done."""
