"""Rooms and sessions on one node: who is in which room, who gets what, and how a session catches up.

A line that ends with `# rule: …` keeps a rule that docs/replay.md names; tests switch each of them off.
"""
