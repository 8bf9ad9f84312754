"""Certificates of a throw-away authority, made by openssl(1)."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Authority:
    """Signs certificates in a folder; `ca` is its own."""

    folder: Path
    name: str = "authority"

    @property
    def ca(self) -> str:
        """The path of its certificate."""
        return str(self.folder / f"{self.name}.pem")

    def create(self) -> Authority:
        """Make its key and certificate."""
        _openssl(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-subj", f"/O=netlib tests/CN={self.name}", "-days", "1", "-out", self.ca),
            *("-keyout", str(self.folder / f"{self.name}.key")),
        )
        return self

    def sign(self, name: str, *addresses: str) -> tuple[str, str]:
        """The paths of a certificate and its key, for servers at addresses and for clients."""
        request, key, pem = (str(self.folder / f"{name}.{end}") for end in ("csr", "key", "pem"))
        _openssl(
            *("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-subj", f"/O=netlib tests/CN={name}", "-out", request, "-keyout", key),
        )
        extensions = self.folder / f"{name}.ext"
        names = ",".join(f"IP:{address}" for address in addresses)
        extensions.write_text(
            "extendedKeyUsage=serverAuth,clientAuth\n"
            + (f"subjectAltName={names}\n" if addresses else "")
        )
        _openssl(
            *("x509", "-req", "-in", request, "-CA", self.ca, "-days", "1", "-out", pem),
            *("-CAkey", str(self.folder / f"{self.name}.key"), "-CAcreateserial"),
            *("-extfile", str(extensions)),
        )
        return pem, key


def _openssl(*words: str) -> None:
    subprocess.run(["openssl", *words], check=True, capture_output=True, timeout=20)
