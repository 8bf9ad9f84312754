"""Networks that come and go."""
