"""The two variants of iptables, and which of them a network namespace has rules of."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from netlib.kernel.netfilter.program import Place
from netlib.kernel.netfilter.program import is_installed as program_is_installed
from netlib.model import Family

Variant = Literal["nft", "legacy"]
VARIANTS: tuple[Variant, Variant] = ("nft", "legacy")
LOCK_DIR = Path("/run/netlib")  # where those who change iptables wait for each other


def program(variant: Variant, family: Family, suffix: str = "") -> str:
    """The program of a variant: `ip6tables-legacy-save`."""
    return f"{'iptables' if family == 4 else 'ip6tables'}-{variant}{suffix}"


def is_installed(variant: Variant) -> bool:
    """Whether its programs are."""
    return program_is_installed(program(variant, 4, "-restore"))


def installed_variant(place: Place) -> Variant:
    """The variant that the program `iptables` runs."""
    done = place.run(["iptables", "-V"])
    return "nft" if "nf_tables" in done.out else "legacy"


def legacy_is_loaded(place: Place, family: Family, table: str = "filter") -> bool:
    """Whether the namespace has a legacy table: asking iptables-legacy would make it."""
    # Not /proc/net, which shows the namespace of the process's first thread.
    path = f"/proc/thread-self/net/{'ip' if family == 4 else 'ip6'}_tables_names"

    def read() -> str:
        try:
            with open(path, encoding="ascii") as file:
                return file.read()
        except OSError:
            return ""

    return table in place.call(read).split()
