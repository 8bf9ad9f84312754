"""Every firewall backend by its name, in the network namespace of the test."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from netlib.kernel.netfilter.iptables import Iptables
from netlib.kernel.netfilter.libnftables import Program
from netlib.kernel.netfilter.nftables import Nftables
from netlib.kernel.netfilter.program import Place

BACKENDS = ("nftables", "iptables-nft", "iptables-legacy")
EVERY_WAY = (*BACKENDS, "nftables-program")


@contextlib.contextmanager
def firewall(name: str, lock_dir: Path = Path("/run/netlib")) -> Iterator[Nftables | Iptables]:
    """A backend, closed at the end. `nftables-program` starts nft for each transaction."""
    made: Nftables | Iptables
    if name == "nftables":
        made = Nftables()
    elif name == "nftables-program":
        made = Nftables(nft=Program(Place()), packs=False)
    else:
        variant = name.removeprefix("iptables-")
        assert variant in ("nft", "legacy")
        made = Iptables(variant=variant, lock_dir=lock_dir)  # type: ignore[arg-type]  # asserted
    try:
        yield made
    finally:
        made.close()
