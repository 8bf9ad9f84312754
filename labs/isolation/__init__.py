"""Who reaches whom."""
