"""Rooms and sessions on one node: who is in which room, who gets what, and how a session catches up."""
