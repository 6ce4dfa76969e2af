"""The Valkey server that a hub without a Redis of its own starts and watches."""
