"""One Engine.IO session without I/O: its state, deadlines, packets and what it has to send."""
