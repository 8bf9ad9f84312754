"""Container networking for Linux: networks, sandboxes, endpoints, published ports, names."""
