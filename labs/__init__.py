"""Runnable stories about container networking."""
