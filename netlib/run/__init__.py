"""Processes as sandboxes: a command with networks, mounts and names of its own.

`run` does it in the foreground, `start` in the background; `enter` joins one, `stop` ends it.
"""

from __future__ import annotations
