"""What can be asked of an engine: one file a verb, each prepares an Operation or reads."""
