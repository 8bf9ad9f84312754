"""The joiner's side of the conversation with a manager: whom it trusts, and what can go wrong.

First it asks anybody at that address for the authority's certificate, and compares that with
the pin in its token. Then it connects again, and the other side has to prove by TLS that the
authority calls it a manager; only then it is shown the token.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Mapping
from typing import Any

from netlib.cluster.tokens import Token, pin_of
from netlib.cluster.wire import Silent, receive, send
from netlib.errors import ClockSkew, ManagerUnreachable, NetError, WrongToken, from_document

# Managers' certificates have this name and no others do, so no other node can pass for one.
MANAGER_NAME = "manager.netlib"
# Far below what new certificates are backdated by (certificates.BACKDATED_SECONDS).
MOST_SKEW_SECONDS = 60.0
_SECONDS = 15.0


class Manager:
    """A manager's daemon at HOST:PORT, as one that has a token sees it."""

    def __init__(
        self, host: str, port: int, token: Token, clock: Callable[[], float] = time.time
    ) -> None:
        self.host = host
        self.port = port
        self._token = token
        self._clock = clock
        self._authority = ""
        self.local_address = ""  # the host's own on the way there

    @property
    def name(self) -> str:
        """Where it is, for messages."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def greet(self) -> None:
        """See that it is a manager of the token's cluster, by our clock or near it.

        Raises ManagerUnreachable, WrongToken, ClockSkew.
        """
        anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        anybody.check_hostname = False
        anybody.verify_mode = ssl.CERT_NONE
        before = self._clock()
        said = self._exchange(anybody, {"do": "greet"})
        after = self._clock()
        try:
            authority, theirs = str(said["ca"]), float(said["time"])
            pin = pin_of(authority)
        except (KeyError, TypeError, ValueError) as error:
            raise self._stranger("it says something else") from error
        if pin != self._token.pin:
            raise WrongToken(
                f"the token is of another cluster than the manager at {self.name}",
                "compare the address with what net cluster join-token prints",
            )
        skew = theirs - (before + after) / 2
        if abs(skew) > MOST_SKEW_SECONDS + (after - before) / 2:
            raise ClockSkew(
                f"this host's clock is {abs(skew):.0f} s {'behind' if skew > 0 else 'ahead of'} "
                f"that of the manager at {self.name}; {MOST_SKEW_SECONDS:.0f} s can be borne",
                "set the clocks by a time server on both, as: timedatectl set-ntp true",
            )
        self._authority = authority

    def ask(self, document: Mapping[str, Any]) -> Mapping[str, Any]:
        """What it answers to who has greeted it. Raises what it raised, or ManagerUnreachable."""
        trusting = ssl.create_default_context(cadata=self._authority)
        trusting.minimum_version = ssl.TLSVersion.TLSv1_3
        return self._exchange(trusting, document)

    def _exchange(self, context: ssl.SSLContext, document: Mapping[str, Any]) -> dict[str, Any]:
        deadline = time.monotonic() + _SECONDS
        try:
            with socket.create_connection((self.host, self.port), _SECONDS) as plain:
                self.local_address = plain.getsockname()[0]
                with context.wrap_socket(plain, server_hostname=MANAGER_NAME) as sock:
                    send(sock, document, deadline)
                    said = receive(sock, deadline)
        except ssl.SSLCertVerificationError as error:
            raise self._stranger(f"it can't prove it: {error.verify_message}") from error
        except (ssl.SSLError, Silent) as error:
            raise self._stranger(str(error)) from error
        except (OSError, ValueError) as error:  # UnicodeError: what can't be a host's name
            why = getattr(error, "strerror", None) or error
            raise ManagerUnreachable(
                f"the manager at {self.name} can't be reached: {why}",
                "is its daemon running, and does a firewall let TCP through to that port?",
            ) from error
        if "error" in said:
            raise _error(said["error"])
        return said

    def _stranger(self, why: str) -> ManagerUnreachable:
        return ManagerUnreachable(
            f"what answers at {self.name} is no manager of the cluster: {why}",
            "use the address that net cluster join-token prints",
        )


def _error(document: Any) -> NetError:
    try:
        error = from_document(document)
        error.exit_status = int(document.get("exit_status", error.exit_status))
    except (AttributeError, KeyError, TypeError, ValueError):
        return ManagerUnreachable("the manager's answer can't be read")
    return error
