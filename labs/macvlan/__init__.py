"""A sandbox on the LAN."""
