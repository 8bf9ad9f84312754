"""Errors that the CNI specification has codes of its own for."""

from __future__ import annotations

from netlib.errors import NetError

# CNI specification 1.1.0, "Error"; 8 is the reference library's ErrInvalidNetNS.
INCOMPATIBLE_VERSION = 1
UNSUPPORTED_FIELD = 2
UNKNOWN_CONTAINER = 3
INVALID_ENVIRONMENT = 4
INPUT_OUTPUT = 5
UNDECODABLE = 6
INVALID_CONFIG = 7
INVALID_NAMESPACE = 8
TRY_AGAIN = 11
NOT_AVAILABLE = 50
LIMITED_CONNECTIVITY = 51
INTERNAL = 999


class Refusal(NetError):
    """A call that can not be served, with the code that says why."""

    def __init__(self, code: int, message: str, details: str = "") -> None:
        super().__init__(message, details)
        self.cni_code = code
