"""Doors for callers: thin, and all to the same engine."""
