"""What carries the verbs out, a module for each capability."""
