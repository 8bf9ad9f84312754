"""Untrue."""
