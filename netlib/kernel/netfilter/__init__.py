"""The doors to the kernel's packet filter."""
