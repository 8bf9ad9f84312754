"""Tokens to join by: what a host needs to trust a cluster, and to be trusted by it. Pure.

A token is not kept anywhere: a manager makes one whenever it is asked, and knows its own by the
code at its end, for which it takes a key that only managers have. So nothing that stands in
the cluster's store lets anybody in. `generation` is a number that stands there: raising it ends
all tokens that were made before.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import ssl
import struct

from netlib.cluster.model import Role
from netlib.errors import ExpiredToken, WrongToken
from netlib.values import dataclass

MARK = "net1-"
DEFAULT_SECONDS = 24 * 3600.0
_ROLES: tuple[Role, ...] = ("worker", "manager")
# Version, role, generation, end in seconds since the epoch, salt, pin. With the code it is a
# multiple of three bytes: base64 then has no spare bits that could be altered unnoticed.
_BODY = struct.Struct(">BBIQ10s32s")
_CODE_BYTES = 16
_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """What a token says. `pin` is the SHA-256 of the cluster's CA certificate (DER)."""

    role: Role
    generation: int
    expires: float
    pin: bytes
    salt: bytes = b""

    def signed(self, key: bytes) -> str:
        """Its text."""
        body = _BODY.pack(
            _VERSION,
            _ROLES.index(self.role),
            self.generation,
            int(self.expires),
            self.salt or os.urandom(10),
            self.pin,
        )
        return MARK + base64.urlsafe_b64encode(body + _code(body, key)).decode()


def new_key() -> bytes:
    """A key that managers sign tokens with."""
    return os.urandom(32)


def read(text: str) -> Token:
    """What a token says, whether it is true or not. Raises WrongToken for what is none."""
    body, _ = _parts(text)
    version, role, generation, expires, salt, pin = _BODY.unpack(body)
    if version != _VERSION or role >= len(_ROLES):
        raise WrongToken(
            "the token is of another version of netlib", "use the same version on all hosts"
        )
    return Token(
        role=_ROLES[role], generation=generation, expires=float(expires), salt=salt, pin=pin
    )


def verify(text: str, key: bytes, generation: int, now: float) -> Token:
    """What one of our own tokens says. Raises WrongToken, ExpiredToken."""
    body, code = _parts(text)
    if not hmac.compare_digest(code, _code(body, key)):
        raise WrongToken("the token is not of this cluster", _AGAIN)
    token = read(text)
    if token.generation != generation:
        raise WrongToken("the token was rotated away", _AGAIN)
    if token.expires <= now:
        raise ExpiredToken(f"the token expired {_ago(now - token.expires)} ago", _AGAIN)
    return token


def pin_of(certificate: str) -> bytes:
    """The pin of a CA's certificate (PEM). Raises ValueError for what is none."""
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate)).digest()


_AGAIN = "run on a manager: net cluster join-token"


def _code(body: bytes, key: bytes) -> bytes:
    return hmac.digest(key, b"netlib token" + body, "sha256")[:_CODE_BYTES]


def _parts(text: str) -> tuple[bytes, bytes]:
    try:
        packed = base64.urlsafe_b64decode(text.removeprefix(MARK).encode("ascii"))
    except ValueError:
        packed = b""
    # Decoding leaves out what it does not know, so what came out is written again.
    whole = MARK + base64.urlsafe_b64encode(packed).decode() == text
    if not whole or len(packed) != _BODY.size + _CODE_BYTES:
        # Never the text itself: it may be right but for one letter.
        raise WrongToken(
            "that is no token, or a part of it is missing",
            f"copy all of it, from {MARK} on; {_AGAIN}",
        )
    return packed[: _BODY.size], packed[_BODY.size :]


def _ago(seconds: float) -> str:
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds)} seconds"
