"""A crash and its repair."""
