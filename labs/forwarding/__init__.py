"""The switches of a host."""
