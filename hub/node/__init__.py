"""What one hub process is among others: its id, its lease, what the bus brings it, its maintenance."""
