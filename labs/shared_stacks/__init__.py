"""host, none and container:NAME."""
