"""The kinds of links: how each is made, changed and read back."""
