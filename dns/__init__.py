"""The embedded DNS resolver."""
