"""A small proxy for published ports that the kernel can't redirect: one process for all of them.

`door` is what a kernel uses. `__main__` is the process; all that it imports comes from the
standard library, because it starts while somebody waits for a port.
"""
