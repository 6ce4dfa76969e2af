"""Rooms and sessions on one node: who is in which room, who gets what, and how a session catches up.

Some lines end with a comment that names a rule: docs/replay.md says what the rule is for, and tests switch it off.
"""
