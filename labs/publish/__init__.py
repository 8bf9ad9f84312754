"""A published port."""
