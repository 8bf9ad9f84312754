"""What a person or program calls a sandbox, as the network namespace behind it.

`pid:N`, `netns:NAME`, `netns:/path`, `docker:NAME`, `podman:NAME`. Names without a colon are
netlib's own: the state knows those. Container engines are asked over their HTTP sockets.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from netlib.errors import InvalidRequest, NamespaceGone, NoSuchSandbox, NotPermitted
from netlib.kernel.named import FOLDER
from netlib.model import Sandbox

if TYPE_CHECKING:
    from netlib.kernel import Kernel

KINDS = ("pid", "netns", "docker", "podman")
_SECONDS = 10.0
_MAX_BYTES = 8 << 20  # of an engine's answer


def resolve(reference: str, kernel: Kernel) -> Sandbox:
    """The sandbox that a reference names. Raises NoSuchSandbox, InvalidRequest.

    >>> from netlib.kernel.fake import FakeKernel
    >>> kernel = FakeKernel()
    >>> _ = kernel.add_namespace("web")
    >>> resolve("netns:web", kernel).kind
    'netns'
    """
    kind, colon, name = reference.partition(":")
    if not colon or kind not in KINDS or not name:
        raise InvalidRequest(
            f"{reference!r} names no sandbox",
            "use pid:N, netns:NAME, netns:/path, docker:NAME or podman:NAME",
        )
    if kind == "pid":
        return _of_pid(reference, name, kernel)
    if kind == "netns":
        return _of_path(reference, name, kernel)
    return _of_container(reference, kind, name, kernel)


def _of_pid(reference: str, number: str, kernel: Kernel) -> Sandbox:
    if not number.isdecimal() or int(number) == 0:
        raise InvalidRequest(f"{number!r} is no process id", "use pid:N with a positive number")
    pid = int(number)
    try:
        netns = kernel.enter(f"/proc/{pid}/ns/net", reference)
    except NamespaceGone as error:
        raise NoSuchSandbox(f"there is no process {pid}", "see: ps -e") from error
    return Sandbox(name=reference, netns=netns, kind="pid", pid=pid)


def _of_path(reference: str, name: str, kernel: Kernel) -> Sandbox:
    path = name if "/" in name else str(FOLDER / name)
    if not os.path.isabs(path):
        raise InvalidRequest(f"{name!r} is no absolute path", "use netns:NAME or netns:/path")
    try:
        netns = kernel.enter(path, reference)
    except NamespaceGone as error:
        raise NoSuchSandbox(f"there is no network namespace at {path}", "see: ip netns") from error
    # /proc/N/ns/net is anybody's: as a name, it would be that of all who are given so.
    hostname = "" if path.startswith("/proc/") else os.path.basename(path)
    return Sandbox(name=reference, netns=netns, kind="netns", hostname=hostname)


def _of_container(reference: str, engine: str, name: str, kernel: Kernel) -> Sandbox:
    document = _inspect_docker(name) if engine == "docker" else _inspect_podman(name)
    state, config = document.get("State") or {}, document.get("Config") or {}
    pid = int(state.get("Pid") or 0)
    if pid == 0:
        status = state.get("Status") or "not running"
        raise NoSuchSandbox(f"{engine} container {name} is {status}", f"run: {engine} start {name}")
    try:
        netns = kernel.enter(f"/proc/{pid}/ns/net", reference)
    except NamespaceGone as error:
        raise NoSuchSandbox(
            f"the process {pid} of {engine} container {name} can't be seen from here",
            "run where the container runs, in the host's pid namespace",
        ) from error
    return Sandbox(
        name=reference,
        netns=netns,
        kind=engine,
        pid=pid,
        hostname=str(config.get("Hostname") or ""),
        labels={str(k): str(v) for k, v in (config.get("Labels") or {}).items()},
    )


def _inspect_docker(name: str) -> Mapping[str, Any]:
    """Docker Engine API, "Inspect a container"."""
    path = _unix_socket("DOCKER_HOST", os.environ.get("DOCKER_HOST"))
    path = path or "/var/run/docker.sock"
    return _ask(path, f"/containers/{_quoted(name)}/json", "docker", name)


def _inspect_podman(name: str) -> Mapping[str, Any]:
    """Podman's libpod API where its socket is there, else its program: it has no daemon."""
    given = _unix_socket("CONTAINER_HOST", os.environ.get("CONTAINER_HOST"))
    candidates = [given] if given else ["/run/podman/podman.sock"]
    runtime_dir = os.environ.get("XDG_RUNTIME_DIR")
    if not given and runtime_dir:
        candidates.append(f"{runtime_dir}/podman/podman.sock")
    for path in candidates:
        if given or os.path.exists(path):
            route = f"/v4.0.0/libpod/containers/{_quoted(name)}/json"
            return _ask(path, route, "podman", name)
    return _podman_program(name)


def _podman_program(name: str) -> Mapping[str, Any]:
    import subprocess  # where its socket is, nobody needs the program

    command = ["podman", "container", "inspect", "--", name]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_SECONDS, check=False)
    except FileNotFoundError as error:
        raise NoSuchSandbox(
            "podman is not here: neither its socket nor its program is",
            "set CONTAINER_HOST=unix:///path, or use pid:N",
        ) from error
    except subprocess.TimeoutExpired as error:
        raise NoSuchSandbox(f"podman does not answer about container {name}") from error
    if done.returncode != 0:
        raise NoSuchSandbox(f"podman knows no container {name}", "see: podman ps -a")
    documents = _parsed(done.stdout, "podman")
    if not isinstance(documents, list) or not documents or not isinstance(documents[0], dict):
        raise NoSuchSandbox(f"podman knows no container {name}", "see: podman ps -a")
    first: Mapping[str, Any] = documents[0]
    return first


def _unix_socket(variable: str, address: str | None) -> str:
    """The path of unix:///path, "" where nothing is said."""
    if not address:
        return ""
    scheme, _, path = address.partition("://")
    if scheme != "unix" or not path.startswith("/"):
        raise InvalidRequest(
            f"{variable}={address} is no unix socket",
            "sandboxes are on this host: use unix:///path, or name them by pid:N",
        )
    return path


def _quoted(name: str) -> str:
    from urllib.parse import quote

    return quote(name, safe="")


def _ask(path: str, route: str, engine: str, name: str) -> Mapping[str, Any]:
    """The engine's answer to GET `route`, over HTTP on a unix socket."""
    import http.client

    class Connection(http.client.HTTPConnection):
        def connect(self) -> None:
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.settimeout(_SECONDS)
            self.sock.connect(path)

    connection = Connection("localhost", timeout=_SECONDS)
    try:
        connection.request("GET", route)
        response = connection.getresponse()
        status, body = response.status, response.read(_MAX_BYTES)
    except PermissionError as error:
        raise NotPermitted(
            f"{engine} may not be asked at {path}", f"run it as root, or join the group {engine}"
        ) from error
    except (OSError, http.client.HTTPException) as error:
        raise NoSuchSandbox(
            f"{engine} can't be asked about {name}: nothing answers at {path}",
            f"start {engine}, or name the sandbox by pid:N",
        ) from error
    finally:
        with suppress(OSError):
            connection.close()
    if status == http.client.NOT_FOUND:
        raise NoSuchSandbox(f"{engine} knows no container {name}", f"see: {engine} ps -a")
    document = _parsed(body, engine)
    if status != http.client.OK or not isinstance(document, dict):
        message = document.get("message", "") if isinstance(document, dict) else ""
        raise NoSuchSandbox(f"{engine} does not tell of container {name}: {status} {message}")
    return document


def _parsed(body: bytes, engine: str) -> Any:
    try:
        return json.loads(body)
    except ValueError as error:
        raise NoSuchSandbox(f"{engine} gives an answer that is no JSON") from error
