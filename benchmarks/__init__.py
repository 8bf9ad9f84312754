"""Measurements beside others. Never tests: a slow machine is no fault."""
