"""The default bridge, and networks of one's own."""
