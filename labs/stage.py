"""Where a story plays: the throw-away host, and what stands around it before it begins."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from netlib import throwaway
from netlib.built_in import DEFAULT, network
from netlib.labs.capture import Point, call_in
from netlib.values import dataclass

# In a throw-away host what is written below /var/lib is forgotten, and all its hosts see it.
FOLDER = Path("/var/lib/netlib-lab")
TIMEOUT = 30.0  # seconds that a command may take

# What stories type again and again: our small server, a page that comes, and one that does not.
SERVE = "python3 -m netlib.labs.answer"
FETCH = "curl -sS"
TRY = "curl -sS --max-time 0.5"

# RFC 5737 and RFC 3849 keep these for documentation.
UPLINK4, UPLINK6 = "192.0.2.1", "2001:db8:2::1"
OUTSIDE4, OUTSIDE6 = "192.0.2.100", "2001:db8:2::100"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Somewhere in the lab: a host, a machine beside it, or a sandbox.

    `enter` is what a person types before a command to have it run there, from the lab's first
    host; `netns` is the path of its network namespace, and `root` that of its files.
    """

    name: str
    netns: str
    enter: tuple[str, ...] = ()
    root: str = ""

    def at(self, device: str) -> Point:
        """A device of it, to listen at."""
        return Point(name=self.name, netns=self.netns, device=device)


class End(NamedTuple):
    """One end of a cable: the device that it is there, and its addresses (`192.0.2.1/24`)."""

    place: Place
    device: str
    addresses: Iterable[str] = ()


class Stage:
    """Builds machines. What it runs is scenery: it is not shown."""

    def __init__(self) -> None:
        self.host = Place(name="host", netns=f"/proc/{os.getpid()}/ns/net")
        self.places: list[Place] = []  # beside the host
        self.hosts: list[Place] = []  # those of them that have netlib
        self._wires = 0
        self._before: frozenset[str] = frozenset()
        self._processes: list[subprocess.Popen[str]] = []

    # -- machines -----------------------------------------------------------------------------

    def machine(self, name: str) -> Place:
        """A machine without netlib, that nothing leads to yet."""
        sh("ip", "netns", "add", name)
        path = f"/run/netns/{name}"
        place = Place(name=name, netns=path, enter=("nsenter", f"--net={path}", "--"))
        sh("ip", "link", "set", "lo", "up", at=place)
        self.places.append(place)
        return place

    def another_host(self, name: str) -> Place:
        """A further host: it has a network, /run, state and hostname of its own."""
        holder = self._start([sys.executable, "-m", "netlib.labs.another_host", name])
        place = Place(
            name=name,
            netns=f"/proc/{holder.pid}/ns/net",
            enter=("nsenter", f"--target={holder.pid}", "--mount", "--net", "--uts", "--"),
            root=f"/proc/{holder.pid}/root",
        )
        self.places.append(place)
        self.hosts.append(place)
        return place

    def wire(self, one: End, other: End) -> None:
        """A cable between two machines."""
        # The kernel takes up to a second to see the carrier where both ends of a veth pair
        # have the same index (linkwatch_urgent_event in net/core/link_watch.c).
        self._wires += 2
        index = 1000 + self._wires
        pair = f"{one.device} index {index} type veth peer name lab-wire index {index + 1}"
        batch(one.place, [f"link add {pair}"])
        with open(other.place.netns, "rb") as there:
            path = f"/proc/{os.getpid()}/fd/{there.fileno()}"
            batch(one.place, [f"link set lab-wire netns {path} name {other.device}"])
        for end in (one, other):
            lines = [f"addr add {a} dev {end.device}{_at_once(a)}" for a in end.addresses]
            batch(end.place, [*lines, f"link set {end.device} up"])

    def outside(self, name: str = "outside", /, **names: str) -> Place:
        """A machine outside at 192.0.2.100, called `name`, and the host's eth0 to it, 192.0.2.1.

        It is the host's default gateway and name server, which knows these names (with `_` for
        `.`) and no others. Both have IPv6 addresses as well.
        """
        place = self.machine(name)
        self.wire(
            End(self.host, "eth0", (f"{UPLINK4}/24", f"{UPLINK6}/64")),
            End(place, "eth0", (f"{OUTSIDE4}/24", f"{OUTSIDE6}/64")),
        )
        batch(self.host, [f"route add default via {OUTSIDE4}", f"route add default via {OUTSIDE6}"])
        known = [f"{one.replace('_', '.')}={value}" for one, value in names.items()]
        self._start([sys.executable, "-m", "netlib.labs.nameserver", *known], at=place)
        # An ordinary user may not write to root's file, but show another one in its place.
        file = FOLDER / "resolv.conf"
        file.write_text(f"nameserver {OUTSIDE4}\n", encoding="ascii")
        throwaway.bind(str(file), "/etc/resolv.conf")
        return place

    # -- servers ------------------------------------------------------------------------------

    def answers(self, place: Place, port: int) -> None:
        """The server of labs/answer.py, in a place, once it listens."""
        # A machine of ours has a network of its own, but not a hostname.
        server = ["env", f"LAB_NAME={place.name}", sys.executable, "-m", "netlib.labs.answer"]
        self._start([*server, str(port)], at=place, waits=False)
        self.listening(place, port)

    def listening(self, place: Place, port: int) -> None:
        """Wait until something listens at a port there."""

        def connect() -> None:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()

        deadline = time.monotonic() + TIMEOUT
        while True:
            with contextlib.suppress(OSError):
                call_in(place.netns, connect)
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"nothing listens at port {port} of {place.name}")
            time.sleep(0.01)

    def _start(
        self, argv: list[str], *, at: Place | None = None, waits: bool = True
    ) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*(at.enter if at else ()), *argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE if waits else subprocess.DEVNULL,
            text=True,
            start_new_session=True,  # Ctrl-C on a terminal is for the story
        )
        self._processes.append(process)
        if waits:
            assert process.stdout is not None
            if not process.stdout.readline():
                raise ChildProcessError(f"it ended before it was ready: {shlex.join(argv)}")
        return process

    # -- what netlib made ---------------------------------------------------------------------

    def sandbox(self, name: str, *, on: Place | None = None) -> Place:
        """A sandbox of a host as a place."""
        on = on or self.host
        (box,) = [box for box in ask_net(on, "sandbox", "ls")["sandboxes"] if box["name"] == name]
        path = str(box["netns"]["path"])
        if not path.startswith("/proc/"):
            path = on.root + path  # another host has other names
        return Place(
            name=name,
            netns=path if box["netns"]["path"] else on.netns,
            enter=(*on.enter, "net", "exec", name, "--"),
        )

    def address(self, sandbox: str, network: str, *, on: Place | None = None) -> str:
        """A sandbox's first address on a network."""
        (details,) = ask_net(on or self.host, "inspect", network)["networks"]
        (found,) = [e for e in details["endpoints"] if e["sandbox"] == sandbox]
        return str(found["addresses"][0]).partition("/")[0]

    @property
    def firewall(self) -> str:
        """The backend that netlib has chosen on the first host: `nftables` or `iptables`."""
        return str(ask_net(self.host, "rules")["firewall"])

    @property
    def has_nft(self) -> bool:
        """Whether rules can be looked at by the program `nft`."""
        return self.firewall == "nftables" and shutil.which("nft") is not None

    # -- the beginning and the end ------------------------------------------------------------

    def is_set(self) -> None:
        """From now on, what there is more than now is left over."""
        self._before = _links()

    def leftovers(self) -> list[str]:
        """What the story made and did not take away: sandboxes, networks, links.

        The device of the default network stays, as the network does.
        """
        left: list[str] = []
        for host in (self.host, *self.hosts):
            networks = ask_net(host, "ls", "--filter", "type=custom")["networks"]
            left += [f"network {one['name']} of {host.name}" for one in networks]
            boxes = ask_net(host, "sandbox", "ls")["sandboxes"]
            left += [f"sandbox {box['name']} of {host.name}" for box in boxes]
        default = network(DEFAULT).options["bridge.name"]
        return left + sorted(_links() - self._before - {default})


def batch(place: Place, lines: Iterable[str]) -> None:
    """Commands of `ip`, all in one process."""
    sh("ip", "-batch", "-", at=place, stdin="\n".join(lines))


def sh(*argv: str, at: Place | None = None, stdin: str = "") -> str:
    """What a command of the scenery prints."""
    done = subprocess.run(
        [*(at.enter if at else ()), *argv],
        input=stdin, capture_output=True, text=True, timeout=TIMEOUT, check=False,
    )  # fmt: skip
    if done.returncode:
        raise ChildProcessError(f"{shlex.join(argv)}: {done.stderr.strip()}\n{stdin}")
    return done.stdout


def ask_net(host: Place, *words: str) -> dict[str, Any]:
    """What `net WORDS --json` tells on a host."""
    argv = [*words, "--json"]
    document: dict[str, Any] = json.loads(
        sh("net", *argv, at=host) if host.enter else _here(argv)  # a program less to start
    )
    return document


def _here(argv: list[str]) -> str:
    from netlib.frontends.cli.program import invoke

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        status = invoke(argv)
    if status:
        raise ChildProcessError(f"net {shlex.join(argv)}: {printed.getvalue()}")
    return printed.getvalue()


def _links() -> frozenset[str]:
    return frozenset(name for _, name in socket.if_nameindex())


def _at_once(address: str) -> str:
    """Duplicate address detection would keep an IPv6 address unusable for a second."""
    return " nodad" if ":" in address else ""
