"""Labs of these tests."""
