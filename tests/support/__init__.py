"""What the tests stand on: real servers, real hubs, real clients and a network that breaks."""
