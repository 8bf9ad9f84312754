"""A host for one test: a fresh network namespace that the test itself is in."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TypeVar

from netlib import throwaway
from netlib.model import Netns
from support.netns import CURRENT, call_in, end_processes, inode, new_namespace
from support.patience import eventually

T = TypeVar("T")

NAMED = Path("/run/netns")
TIMEOUT = 20.0

# RFC 5737 and RFC 3849 keep these for documentation.
HOST4, HOST6 = "192.0.2.1", "2001:db8:2::1"
OUTSIDER4, OUTSIDER6 = "192.0.2.100", "2001:db8:2::100"


@dataclass(frozen=True)
class Place:
    """Somewhere in a network: the host, a sandbox or an outsider. `netns` opens it."""

    name: str
    descriptor: int
    netns: Netns

    def call(self, function: Callable[[], T]) -> T:
        """What `function` returns when a thread calls it in this place."""
        return call_in(self.descriptor, function)

    def run(
        self, *argv: str, check: bool = True, stdin: str = "", timeout: float = TIMEOUT
    ) -> subprocess.CompletedProcess[str]:
        """Run a program here to its end; when it fails and `check` is set, show what it said."""
        done = self.call(
            lambda: subprocess.run(
                argv, input=stdin, capture_output=True, text=True, timeout=timeout, check=False
            )
        )
        if check and done.returncode:
            raise AssertionError(
                f"{self.name}: {' '.join(argv)} ended with {done.returncode}\n"
                f"{done.stdout}{done.stderr}"
            )
        return done

    def popen(self, *argv: str, **options: object) -> subprocess.Popen[str]:
        """Start a program here; whatever of it is left is killed with the host."""
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, **options}
        return self.call(lambda: subprocess.Popen(argv, **options))  # type: ignore[call-overload]


@dataclass
class Host:
    """The host of one test, with all that the test puts beside it.

    The test's own thread is in `place`, and so are the threads and processes it starts.
    """

    place: Place
    state_dir: Path
    _given: set[str] = field(default_factory=set)
    _descriptors: list[int] = field(default_factory=list)

    @property
    def netns(self) -> Netns:
        """The host's network namespace."""
        return self.place.netns

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.place.name

    @property
    def descriptor(self) -> int:
        """The file descriptor of the host's network namespace."""
        return self.place.descriptor

    def call(self, function: Callable[[], T]) -> T:
        """What `function` returns when a thread calls it in the host."""
        return self.place.call(function)

    def run(self, *argv: str, **options: object) -> subprocess.CompletedProcess[str]:
        """Run a program in the host, see Place.run."""
        return self.place.run(*argv, **options)  # type: ignore[arg-type]

    def popen(self, *argv: str, **options: object) -> subprocess.Popen[str]:
        """Start a program in the host, see Place.popen."""
        return self.place.popen(*argv, **options)

    def sandbox(self, name: str) -> Place:
        """A new named network namespace (`ip netns` shows it) with nothing but `lo`, up."""
        path = str(NAMED / name)
        return self._place(name, new_namespace(path), path)

    def empty(self, name: str) -> Place:
        """A new network namespace without a name in /run/netns: for what is not a sandbox."""
        return self._place(name, new_namespace())

    def outsider(self) -> Place:
        """A machine outside, and the host's uplink `eth0` to it; it is the default gateway.

        The host gets 192.0.2.1/24 and 2001:db8:2::1/64, the outsider .100 and ::100.
        """
        return self.neighbour(
            "outsider",
            "eth0",
            (f"{HOST4}/24", f"{HOST6}/64"),
            (f"{OUTSIDER4}/24", f"{OUTSIDER6}/64"),
            gateway=True,
        )

    def neighbour(
        self,
        name: str,
        device: str,
        ours: Iterable[str],
        theirs: Iterable[str],
        *,
        gateway: bool = False,
    ) -> Place:
        """A machine at the other end of a new `device`, which leftovers() knows and ignores."""
        before = _facts_of_links(self.place)
        place = self.empty(name)
        theirs = list(theirs)
        # The kernel takes up to a second to see the carrier where both ends of a veth pair
        # have the same index (linkwatch_urgent_event in net/core/link_watch.c).
        index = 1000 + len(self._descriptors)
        # Link-local addresses by hand: those of the kernel come and go with the carrier.
        self.run("ip", "-batch", "-", stdin="\n".join([
            f"link add {device} index {index} type veth peer name eth0 netns {place.netns.path}",
            f"link set {device} addrgenmode none",
            f"addr add fe80::1/64 dev {device} nodad",
            *(f"addr add {address} dev {device}{_nodad(address)}" for address in ours),
            f"link set {device} up",
        ]))  # fmt: skip
        place.run("ip", "-batch", "-", stdin="\n".join([
            "link set eth0 addrgenmode none",
            "addr add fe80::2/64 dev eth0 nodad",
            *(f"addr add {address} dev eth0{_nodad(address)}" for address in theirs),
            "link set eth0 up",
        ]))  # fmt: skip
        if gateway:
            routes = [f"route add default via {a.partition('/')[0]} dev {device}" for a in theirs]
            self.run("ip", "-batch", "-", stdin="\n".join(routes))

        def settled() -> set[str]:
            """Not before the kernel has seen the carrier, which brings what goes with addresses."""
            given = _facts_of_links(self.place) - before
            local = any(f"local fe80::1 dev {device} " in fact for fact in given)
            return given if local and not any("tentative" in fact for fact in given) else set()

        self._given |= eventually(settled)
        return place

    def leftovers(self, allow: Iterable[str] = ()) -> list[str]:
        """What is in the host that was not there at first and is not the test's own.

        Links, addresses, routes, rules of the routing policy, nftables, legacy iptables,
        forwarding, named namespaces. `allow` are regular expressions of what may stay.
        """
        allowed = [re.compile(pattern) for pattern in allow]
        facts = _facts_of_links(self.place) | self._named() | _facts_of_rules(self.place)
        return sorted(
            fact
            for fact in facts - self._given - _pristine()
            if not any(pattern.search(fact) for pattern in allowed)
        )

    def _named(self) -> set[str]:
        return {f"netns {name}" for name in os.listdir(NAMED)}

    def _place(self, name: str, descriptor: int, path: str = "") -> Place:
        self._descriptors.append(descriptor)
        if path:
            self._given.add(f"netns {name}")
        path = path or f"/proc/{os.getpid()}/fd/{descriptor}"
        return Place(name, descriptor, Netns(name=name, path=path, inode=inode(descriptor)))

    def close(self) -> None:
        """End what runs in the host's namespaces and take their names away."""
        names = [str(NAMED / name) for name in os.listdir(NAMED)]
        end_processes({inode(place) for place in [self.descriptor, *self._descriptors, *names]})
        for descriptor in self._descriptors:
            os.close(descriptor)
        for name in names:
            with contextlib.suppress(OSError):  # not mounted, or not any more
                while True:
                    throwaway.unmount(name)
            os.unlink(name)


@contextlib.contextmanager
def new_host() -> Iterator[Host]:
    """A host that the calling thread is in until the end; only for throw-away hosts."""
    if not throwaway.inside():
        raise RuntimeError("this is a real host: tests may not touch it")
    NAMED.mkdir(exist_ok=True)
    before = os.open(CURRENT, os.O_RDONLY | os.O_CLOEXEC)
    state_dir = Path(tempfile.mkdtemp(prefix="state-", dir="/run"))
    throwaway.unshare(throwaway.NEW_NET)
    descriptor = os.open(CURRENT, os.O_RDONLY | os.O_CLOEXEC)
    try:
        throwaway.raise_loopback()
        path = f"/proc/{os.getpid()}/fd/{descriptor}"
        place = Place("host", descriptor, Netns(name="host", path=path, inode=inode(descriptor)))
        host = Host(place, state_dir)
        try:
            yield host
        finally:
            host.close()
    finally:
        throwaway.join(before, throwaway.NEW_NET)
        os.close(before)
        os.close(descriptor)
        shutil.rmtree(state_dir)


def _nodad(address: str) -> str:
    """Duplicate address detection would keep an IPv6 address unusable for a second."""
    return " nodad" if ":" in address else ""


_SHOW = {"-4": "link\naddr\nroute show table all\nrule", "-6": "addr\nroute show table all\nrule"}
_KINDS = {"link": r"\d+: (\S+?)(?:@\S+)?: <", "address": r"\d+: (\S+ +inet.*?) *(?:\\|$)",
          "rule": r"(\d+:\s+.*)", "route": r"(.*)"}  # fmt: skip


def _facts_of_links(place: Place) -> set[str]:
    return {
        _fact(line)
        for family, commands in _SHOW.items()
        for line in place.run("ip", "-o", family, "-batch", "-", stdin=commands).stdout.splitlines()
    }


def _fact(line: str) -> str:
    for kind, pattern in _KINDS.items():
        if found := re.match(pattern, line.strip()):
            return f"{kind} {' '.join(found[1].split())}"
    raise ValueError(line)


@cache
def _pristine() -> frozenset[str]:
    """What every network namespace has that was just made."""
    descriptor = new_namespace()
    try:
        place = Place("new", descriptor, Netns(name="new"))
        return frozenset(_facts_of_links(place) | _facts_of_rules(place))
    finally:
        os.close(descriptor)


def _facts_of_rules(place: Place) -> set[str]:
    def read() -> set[str]:
        facts = set()
        for family in ("ip", "ip6"):
            with contextlib.suppress(FileNotFoundError):  # the module is not loaded
                tables = Path(f"/proc/thread-self/net/{family}_tables_names").read_text().split()
                for table in tables:
                    save = f"{family}tables-legacy-save"
                    saved = subprocess.run([save, "-t", table], capture_output=True, text=True,
                                           timeout=TIMEOUT, check=True).stdout  # fmt: skip
                    facts |= {
                        f"{save} {table} {line}"
                        for line in saved.splitlines()
                        if re.match(r"-|:\S+ -|:\S+ DROP", line)
                    }
        for name in ("ipv4/conf/all/forwarding", "ipv6/conf/all/forwarding"):
            value = Path("/proc/sys/net", name).read_text().strip()
            if value != "0":
                facts.add(f"sysctl net.{name.replace('/', '.')}={value}")
        return facts

    facts = place.call(read)
    # Stateless: a counter that a stray packet moves is no change.
    ruleset = place.run("nft", "-s", "list", "ruleset", check=False).stdout
    table = ""
    for line in ruleset.splitlines():
        if line.startswith("table "):
            table = line.rstrip(" {")
        if line.strip() not in ("", "}"):
            facts.add(f"nft {table}: {line.strip()}")
    return facts
