"""Several hosts."""
