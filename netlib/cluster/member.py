"""What becoming a member is made of, whether by founding a cluster or by joining one."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from typing import TypeVar

from netlib.cluster import keys
from netlib.cluster.copies import LEASE_KEY, SEEN_KEY
from netlib.cluster.doors import Doors
from netlib.cluster.etcd_members import EtcdMembers
from netlib.cluster.model import Membership, Node
from netlib.cluster.server import CLIENT_PORT, PEER_PORT, Server, until
from netlib.errors import (
    AddressTaken,
    AlreadyMember,
    InvalidName,
    InvalidPort,
    ManagerUnreachable,
    NameTaken,
    NetError,
    PortTaken,
    StoreConflict,
    StoreError,
)
from netlib.keys import MEMBERSHIP_KEY
from netlib.model import IPAddress, Protocol
from netlib.records import dump
from netlib.store import Absent, Commit, Store, Unchanged

T = TypeVar("T")
START_SECONDS = 30.0
_PAUSE_SECONDS = 0.2
# RFC 1123 section 2.1, and dots: what gethostname(2) may give.
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")


def check_free(doors: Doors) -> None:
    """Raise AlreadyMember where this host is one."""
    if doors.record() is not None:
        membership = doors.membership()
        raise AlreadyMember(
            f"this host is a member of cluster {membership.cluster[:12]} already",
            "see: net cluster status; it leaves with: net cluster leave",
        )


def check_name(name: str) -> str:
    """A node's name, or InvalidName."""
    if not _NAME.fullmatch(name):
        raise InvalidName(
            f"{name!r} is no name for a node", "give one of letters, digits, '.', '-': --name NAME"
        )
    return name


def check_port(doors: Doors, protocol: Protocol, address: IPAddress, port: int, hint: str) -> int:
    """A port of an address that nobody listens on, or PortTaken."""
    if not 0 < port < 65536:
        raise InvalidPort(f"{port} is no port", "give one from 1 to 65535")
    user = doors.engine.kernel.port_user(protocol, address, port, 1)
    if user is not None:
        raise PortTaken(f"{protocol.upper()} port {port} is taken by {user}", hint)
    return port


def check_join_port(port: int) -> int:
    """A port to join at beside our own server of the store, or PortTaken."""
    if port in (CLIENT_PORT, PEER_PORT):
        raise PortTaken(
            f"TCP port {port} is for the cluster's etcd, and none to join at",
            "choose another: --advertise-addr ADDRESS:PORT",
        )
    return port


def check_data_port(doors: Doors, address: IPAddress, port: int, hint: str) -> int:
    """The UDP port for tunnelled frames, if it is free here, else PortTaken."""
    about_devices = "ip -d link show type vxlan tells whether a device has it"
    return check_port(doors, "udp", address, port, f"{hint}; {about_devices}")


def version() -> str:
    """Of this netlib."""
    try:
        return version_of("contnet")
    except PackageNotFoundError:
        return ""


@contextmanager
def becoming(doors: Doors) -> Iterator[None]:
    """Become a member meanwhile, or leave nothing; nor does who tried before and was killed."""
    with doors.alone():
        check_free(doors)
        give_up(doors)
        try:
            yield
        except BaseException:
            if doors.record() is None:
                give_up(doors)
            raise


def give_up(doors: Doors) -> None:
    """End our server of the store, and remove keys, certificates and its data."""
    Server(doors.files.folder).stop()
    doors.files.remove()


def start(doors: Doors, membership: Membership) -> None:
    """Start our server of the store, and wait until it serves. Raises StoreError, EtcdMissing."""
    server, etcd = Server(doors.files.folder), EtcdMembers(membership)
    server.start()

    def serves() -> bool:
        with suppress(StoreError):
            return int(etcd.status(membership.endpoints[0]).get("leader", 0)) != 0
        return False

    until(serves, server, START_SECONDS)


def settled(doors: Doors, seconds: float = START_SECONDS) -> bool:
    """Wait until this host's agent lives and has seen what the cluster has; whether it did.

    Only then can a new member use the cluster's networks.
    """
    store, deadline = doors.engine.state.store, time.monotonic() + seconds
    while True:
        revision = store.revision()
        if all(store.get(key) for key in (LEASE_KEY, SEEN_KEY)):
            return True
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        store.changes(revision, left)


def insist(act: Callable[[], T]) -> T:
    """What is got by doing what the store's servers may refuse for a while. Raises StoreError."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            return act()
        except StoreError as error:
            if isinstance(error, ManagerUnreachable) or time.monotonic() > deadline:
                raise
            time.sleep(_PAUSE_SECONDS)


def enrol(store: Store, node: Node, *, first: Mapping[str, str] | None = None) -> None:
    """Make a node known to all; `first` are the records of a new cluster.

    Raises NameTaken, AddressTaken.
    """
    name, address = keys.node_name(node.name), keys.data_address(node.data_address)
    known = keys.node(node.id)
    new = (Absent(keys.CLUSTER),) if first else ()
    put = {**(first or {}), known: dump(node), name: node.id, address: node.id}
    try:
        store.commit(
            Commit(conditions=(*new, Absent(name), Absent(address), Absent(known)), put=put)
        )
    except StoreConflict as conflict:
        if conflict.key == name:
            raise NameTaken(
                f"the cluster has a node {node.name} already",
                "give this one another name with --name; or, if that host is gone for good, run "
                f"on a manager: net node rm {node.name}",
            ) from conflict
        if conflict.key == address:
            raise AddressTaken(
                f"another node of the cluster takes frames at {node.data_address}",
                "give one of this host alone with --data-path-addr; or, if that node is gone for "
                "good, run on a manager: net node rm NODE",
            ) from conflict
        raise


def records_of(node: Node) -> tuple[str, ...]:
    """The keys that tell others of a node."""
    return (
        keys.node(node.id),
        keys.node_name(node.name),
        keys.data_address(node.data_address),
        keys.alive(node.id),
    )


def keep(
    doors: Doors, store: Store, node: Node, membership: Membership, *, also: tuple[str, ...] = ()
) -> None:
    """Note in the host's own state that it is a member; or take back that all know it."""
    try:
        doors.engine.state.store.commit(
            Commit(
                conditions=(Unchanged(MEMBERSHIP_KEY, 0),), put={MEMBERSHIP_KEY: dump(membership)}
            )
        )
    except BaseException:
        with suppress(NetError):
            store.commit(Commit(put={}, delete=(*records_of(node), *also)))
        raise
