"""Which backend a host gets, and what happens to the facts of one that is no longer used."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from netlib.errors import NetError, NotPermitted, Unsupported
from netlib.firewall.base import Marks
from netlib.firewall.nftables_base import TABLE, base
from netlib.kernel.netfilter.libnftables import Nft, NftFailed, open_nft
from netlib.kernel.netfilter.nftables import Nftables
from netlib.kernel.netfilter.program import Place
from netlib.kernel.netfilter.ruleset import Ruleset
from netlib.kernel.netfilter.source_guard import SourceGuards
from netlib.kernel.netfilter.variants import (
    LOCK_DIR,
    VARIANTS,
    Variant,
    is_installed,
    legacy_is_loaded,
)
from netlib.model import FAMILIES
from netlib.plan import Create
from netlib.settings import Backend

if TYPE_CHECKING:  # only the backend that is chosen is loaded
    from netlib.kernel.netfilter.foreign import Foreign, Obstacle
    from netlib.kernel.netfilter.iptables import Iptables
    from netlib.kernel.netfilter.none import NoFirewall

    Chosen = Nftables | Iptables | NoFirewall
    Real = Nftables | Iptables

_REMOVALS: Mapping[str, Callable[[str], tuple[str, ...]]] = {
    "nftables": lambda _: (f"nft delete table {TABLE}",),
    "iptables": lambda variant: tuple(
        f"{program}{variant}-save | grep -v NETLIB- | {program}{variant}-restore"
        for program in ("iptables", "ip6tables")
    ),
}
_INSTALL = "install the package nftables or iptables, or use --firewall none"


def choose(
    backend: Backend = "auto", marks: Marks | None = None, lock_dir: Path = LOCK_DIR
) -> Chosen:
    """The backend asked for; `auto`: nftables wherever it works, else iptables.

    nftables also because its chains see a packet before any other table's do, which those
    of iptables can't promise. Unsupported when the host can't offer it. Whenever its base is
    ensured, it takes over what another backend left, and foreign chains let us pass.
    """
    marks = marks or Marks()
    chosen: Chosen
    if backend == "none":
        from netlib.kernel.netfilter.none import NoFirewall

        chosen = NoFirewall()
    elif backend == "iptables":
        chosen = _iptables(marks, lock_dir)
    else:
        try:
            chosen = _nftables(marks)
        except NotPermitted:
            raise
        except NetError as error:
            if backend == "nftables" or not any(is_installed(v) for v in VARIANTS):
                raise Unsupported(f"nftables can not be used: {error.message}", _INSTALL) from error
            chosen = _iptables(marks, lock_dir)
    chosen.after_base = lambda: settle(chosen, lock_dir)
    return chosen


def settle(chosen: Chosen, lock_dir: Path = LOCK_DIR) -> list[Obstacle]:
    """Take over what other backends left, pass foreign chains; the obstacles that are left.

    The facts of the other backend are made here before they go there, so that a switch
    closes no port.
    """
    for other in others(chosen, lock_dir):
        facts = other.marked()
        known = {noun.key() for noun in chosen.observe(facts)}
        chosen.do([Create(noun) for noun in facts if noun.key() not in known])
        other.remove_all()
        other.close()
    if chosen.name == "none":
        _remove_guards()
        return []
    with foreign(chosen) as chains:
        return chains.let_us_pass()


def elsewhere(chosen: Chosen, lock_dir: Path = LOCK_DIR) -> dict[str, tuple[str, ...]]:
    """The backends but the chosen one that have facts of ours, each with what would remove them.

    Commands that can be typed. One question where nftables is chosen and has what is ours, since
    what ensures the base of a backend takes all others' facts along.
    """
    if isinstance(chosen, Nftables) and chosen.ruleset.has_base():
        return {}
    found: dict[str, tuple[str, ...]] = {}
    for other in others(chosen, lock_dir):
        try:
            if other.marked():
                variant = f"-{other.variant}" if other.variant else ""
                found[f"{other.name}{variant}"] = _REMOVALS[other.name](variant)
        finally:
            other.close()
    return found


def uninstall(chosen: Chosen, lock_dir: Path = LOCK_DIR) -> None:
    """Take away all that is ours, of every backend, and our rules in foreign chains."""
    for other in others(chosen, lock_dir):
        other.remove_all()
        other.close()
    chosen.remove_all()
    _remove_guards()
    if chosen.name != "none":
        with foreign(chosen) as chains:
            chains.withdraw()


def _remove_guards() -> None:
    guards = SourceGuards()
    guards.remove_all()
    guards.close()


@contextmanager
def foreign(chosen: Chosen) -> Iterator[Foreign]:
    """The foreign chains beside a backend's."""
    from netlib.kernel.netfilter.foreign import Foreign

    with _asking(chosen) as (place, nft, ruleset):
        yield Foreign(place, chosen.marks, ruleset, nft=nft, own=chosen.variant)


def others(chosen: Chosen, lock_dir: Path = LOCK_DIR) -> list[Real]:
    """The other backends that have rules of ours in this namespace, to be closed by the caller.

    Cheap where there are none: where nft can be asked, hardly ever a program is started.
    """
    found: list[Real] = []
    with _asking(chosen) as (place, nft, ruleset):
        if nft is not None and not isinstance(chosen, Nftables) and ruleset.has_table():
            found.append(Nftables())
        for variant in VARIANTS:
            if variant == chosen.variant:
                continue
            if _may_have_ours(variant, place, nft, ruleset) and is_installed(variant):
                other = _open_iptables(Marks(), lock_dir, variant)
                if other.is_there():
                    found.append(other)
                else:
                    other.close()
    return found


@contextmanager
def _asking(chosen: Chosen) -> Iterator[tuple[Place, Nft | None, Ruleset]]:
    """A backend's namespace, nft there, if there is one, and then the rules.

    The backend's own where it has one: closing a socket of nf_tables waits 10 ms or more for
    all that was deleted before (nf_tables_rcv_nl_event in net/netfilter/nf_tables_api.c).
    """
    if isinstance(chosen, Nftables):
        yield chosen.place, chosen.nft, chosen.ruleset
        return
    place = chosen.place or Place()
    nft, ruleset = _open(place), Ruleset(place)
    try:
        yield place, nft, ruleset
    finally:
        ruleset.close()
        if nft is not None:
            nft.close()
        if chosen.place is None:
            place.close()


def _open(place: Place) -> Nft | None:
    try:
        return open_nft(place)
    except NetError:
        return None


def _iptables(marks: Marks, lock_dir: Path) -> Iptables:
    if not any(is_installed(v) for v in VARIANTS):
        raise Unsupported("iptables is not installed", _INSTALL)
    return _open_iptables(marks, lock_dir)


def _open_iptables(marks: Marks, lock_dir: Path, variant: Variant | None = None) -> Iptables:
    from netlib.kernel.netfilter.iptables import Iptables

    return Iptables(marks, variant=variant, lock_dir=lock_dir)


def _nftables(marks: Marks) -> Nftables:
    """nftables, where the kernel takes our base: tried only where it is not there yet."""
    place = Place()
    try:
        nft = open_nft(place)
    except NetError:
        place.close()
        raise
    made = Nftables(marks, place=place, nft=nft)
    try:
        if not made.ruleset.has_table():
            nft.check(base(marks))
    except NotPermitted:
        pass  # who may not ask may not change anything either, and is told so when he tries
    except NftFailed as error:
        if error.number not in (errno.EPERM, errno.EACCES):
            made.close()
            raise
    except NetError:
        made.close()
        raise
    return made


def _may_have_ours(variant: Variant, place: Place, nft: Nft | None, ruleset: Ruleset) -> bool:
    if variant == "legacy":
        return any(legacy_is_loaded(place, family) for family in FAMILIES)
    # iptables-nft's tables are nft's too.
    return nft is None or any(
        chain.name.startswith("NETLIB-") and chain.family in ("ip", "ip6")
        for chain in ruleset.chains()
    )


__all__ = ["choose", "elsewhere", "foreign", "others", "settle", "uninstall"]
