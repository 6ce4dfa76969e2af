"""The state of the hub in Redis: every change of it is one atomic script."""
