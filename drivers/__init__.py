"""The drivers that ship with netlib: one file each, no I/O."""
