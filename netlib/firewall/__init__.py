"""The firewall's nouns rendered for each backend: pure text, no I/O."""
