"""The CNI plugin: a runtime's call, as environment and configuration, to JSON and a status.

`answer` is all of it; a program, the daemon and tests call it (CNI specification 1.1.0).
"""

from netlib.frontends.cni.plugin import answer

__all__ = ["answer"]
