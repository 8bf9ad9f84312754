"""One network over several hosts."""
