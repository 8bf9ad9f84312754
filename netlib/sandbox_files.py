"""A sandbox's resolv.conf, hosts and hostname: kept up to date in a folder of the state.

`net run` shows them in the sandbox; for a sandbox of another runtime they are there to be
mounted. They are rewritten in place: who has mounted or opened one sees the new text.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

from netlib import links
from netlib.dns.facts import own_name
from netlib.dns.resolv import ResolvConf, extra_host, hosts_text, sandbox_resolv_conf
from netlib.errors import StoreError
from netlib.keys import part
from netlib.links import Link
from netlib.lock import flock
from netlib.model import IPAddress, Sandbox
from netlib.naming import nameservers, own_gateways
from netlib.records import EndpointRecord, NetworkRecord
from netlib.state import State

_HOST_FILE = "/etc/resolv.conf"
_MOST_BYTES = 1 << 20
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
# What systemd-resolved itself asks; its stub listens on the host's loopback only.
_RESOLVED_FILE = "/run/systemd/resolve/resolv.conf"


def folder_of(state_dir: Path, name: str) -> Path:
    """Where a sandbox's files are."""
    return state_dir / "sandboxes" / part(name)


def refresh_all(state: State, state_dir: Path, boxes: Iterable[Sandbox]) -> None:
    """Write the files of sandboxes and of those that are linked to them."""
    # Read and written by one at a time: else whoever read first might write last.
    with _alone(state_dir), state.store.reading():
        for box in boxes:
            refresh(state, state_dir, box)
            for name in state.linkers(box.name):
                linker = state.find_sandbox(name)
                if linker is not None:
                    refresh(state, state_dir, linker)


@contextmanager
def _alone(state_dir: Path) -> Iterator[None]:
    folder = f"{state_dir}/sandboxes"  # text: a Path takes longer than a file
    try:
        try:
            descriptor = os.open(folder, _FOLDER)
        except FileNotFoundError:  # only at first
            os.makedirs(folder, mode=0o755, exist_ok=True)
            descriptor = os.open(folder, _FOLDER)
    except OSError as error:
        raise StoreError(
            f"the files of sandboxes can't be written: {error}", f"see that {folder} is a folder"
        ) from error
    try:
        flock(descriptor, folder)
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # a child that was forked meanwhile has it, too
        os.close(descriptor)


def refresh(state: State, state_dir: Path, box: Sandbox) -> None:
    """Write a sandbox's files as the state says now; take them away if it is known no more."""
    folder = f"{state_dir}/sandboxes/{part(box.name)}"
    known = state.find_sandbox(box.name)
    files = {} if known is None else _files(state, known)
    try:
        if not files:
            _remove(folder)
            return
        for name, text in files.items():
            _write(f"{folder}/{name}", text)
    except OSError as error:
        raise StoreError(
            f"the files of sandbox {box.name} can't be written: {error}",
            f"see that {folder} can be written to (df {state_dir})",
        ) from error


def _files(state: State, box: Sandbox) -> dict[str, str]:
    endpoints = state.endpoints_of(state.owner(box).name)
    networks = {r.endpoint.network: state.network(r.endpoint.network) for r in endpoints}
    linked = [link for record in endpoints for link in state.links_of(record.endpoint)]
    return texts(box, endpoints, networks, _of_host(), linked)


def servers_of(state: State, box: Sandbox) -> tuple[str, ...]:
    """Whom a sandbox asks for names, by its resolv.conf as it should be now."""
    with state.store.reading():  # a network may be on its way out
        endpoints = state.endpoints_of(box.name)
        networks = {r.endpoint.network: state.network(r.endpoint.network) for r in endpoints}
    return ResolvConf.parse(texts(box, endpoints, networks, _of_host())["resolv.conf"]).servers


def texts(
    box: Sandbox,
    endpoints: list[EndpointRecord],
    networks: Mapping[str, NetworkRecord],
    host: ResolvConf,
    linked: Iterable[Link] = (),
) -> dict[str, str]:
    """The files by name."""
    joined = [(networks[record.endpoint.network], record) for record in endpoints]
    resolv = sandbox_resolv_conf(
        host=host,
        resolvers=tuple(
            map(str, nameservers((n.network, n.wiring, r.endpoint, r.wiring) for n, r in joined))
        ),
        servers=box.servers,
        search=box.search,
        options=box.resolver_options,
    )
    gateways = tuple(map(str, _gateways(endpoints, networks)))
    called = own_name(box.name)
    hosts = hosts_text(
        addresses=[str(a.ip) for r in endpoints for a in r.endpoint.addresses],
        names=(box.hostname, called),
        # An entry for the gateway waits until there is one.
        extra=[
            entry
            for text in box.extra_hosts
            if gateways or not text.endswith("host-gateway")
            for entry in extra_host(text, gateways)
        ]
        + links.hosts(linked),
    )
    return {
        "resolv.conf": resolv.text(),
        "hosts": hosts,
        "hostname": f"{box.hostname or called or 'sandbox'}\n",
    }


def _gateways(
    endpoints: list[EndpointRecord], networks: Mapping[str, NetworkRecord]
) -> tuple[IPAddress, ...]:
    """The first gateway of each family."""
    found: dict[int, IPAddress] = {}
    for record in endpoints:
        for gateway in own_gateways(networks[record.endpoint.network].network, record.endpoint):
            found.setdefault(gateway.version, gateway)
    return tuple(found.values())


def _of_host() -> ResolvConf:
    try:
        text = _text(_HOST_FILE)
        if "127.0.0.53" in text and os.path.exists(_RESOLVED_FILE):
            text = _text(_RESOLVED_FILE)
    except OSError:
        return ResolvConf()  # such a host asks itself, on its loopback, as no sandbox can
    return _parsed(text)


def _text(path: str) -> str:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # open() asks three things more
    try:
        return os.read(descriptor, _MOST_BYTES).decode(errors="replace")
    finally:
        os.close(descriptor)


@lru_cache(maxsize=2)
def _parsed(text: str) -> ResolvConf:
    return ResolvConf.parse(text)


def _write(path: str, text: str) -> None:
    """Bring a file's text up to date, in one write, without making the file anew."""
    new = text.encode()
    try:
        descriptor = os.open(path, _FLAGS, 0o644)
    except FileNotFoundError:  # the folder, and only at first
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        descriptor = os.open(path, _FLAGS, 0o644)
    try:
        if os.pread(descriptor, len(new) + 1, 0) != new:
            os.pwrite(descriptor, new, 0)
            os.ftruncate(descriptor, len(new))
    finally:
        os.close(descriptor)


def _remove(folder: str) -> None:
    for name in ("resolv.conf", "hosts", "hostname"):
        with suppress(FileNotFoundError):
            os.unlink(f"{folder}/{name}")
    with suppress(FileNotFoundError):
        os.rmdir(folder)
