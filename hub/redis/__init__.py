"""Connections to Redis; nothing here knows of rooms, sessions or messages."""
