"""The policy of iptables' FORWARD chains, which `net host forward-policy` shows and sets."""

from __future__ import annotations

from collections.abc import Mapping

from netlib.errors import KernelError, NotPermitted
from netlib.kernel.netfilter.program import Place
from netlib.kernel.netfilter.variants import (
    VARIANTS,
    installed_variant,
    is_installed,
    legacy_is_loaded,
    program,
)
from netlib.kernel.switches import Policy
from netlib.model import FAMILIES


def forward_policies(place: Place) -> dict[str, Policy]:
    """The policy of FORWARD by program: iptables-nft, ip6tables-nft, iptables-legacy, ..."""
    return {name: _policy(place, name) for name in _programs(place)}


def set_forward_policies(place: Place, policies: Mapping[str, Policy]) -> None:
    """Set each program's policy."""
    for name, policy in policies.items():
        done = place.run([name, "-w", "20", "-P", "FORWARD", policy.upper()])
        if done.status:
            raise NotPermitted(f"{name}: {done.err.strip()}", "run as root")


def _programs(place: Place) -> list[str]:
    """Those of the variant that `iptables` runs, and of the other where it has a table."""
    found: list[str] = []
    for variant in VARIANTS:
        if not is_installed(variant):
            continue
        usual = variant == installed_variant(place)
        for family in FAMILIES:
            if usual or (variant == "legacy" and legacy_is_loaded(place, family)):
                found.append(program(variant, family))
    return found


def _policy(place: Place, name: str) -> Policy:
    done = place.run([name, "-w", "20", "-S", "FORWARD"])
    rows = done.out.splitlines()
    if done.status or not rows:
        raise KernelError(f"{name}: {done.err.strip()}", "run as root")
    return "drop" if rows[0].split()[2] == "DROP" else "accept"
