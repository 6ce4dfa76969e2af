"""What one hub process is among others: its id, its lease, what it hears from the bus, its maintenance."""
