"""The daemon: a warm engine behind a unix socket, for who can't wait for a cold one."""
