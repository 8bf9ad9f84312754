"""What tests share: the throw-away host, traffic through it, patience."""
