"""One process of the hub: its start, its listening sockets, its logs and its end."""
