"""Sandboxes are found by pid, path and container engine, the engine over a real socket."""

from __future__ import annotations

import json
import socketserver
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from netlib import sandbox_files
from netlib.errors import InvalidRequest, NoSuchSandbox
from netlib.kernel.fake import FakeKernel
from netlib.kernel.sandboxes import resolve
from netlib.model import Sandbox
from netlib.net import Net
from netlib.state import State

CONTAINER = {
    "Id": "c" * 64,
    "State": {"Pid": 4711, "Status": "running"},
    "Config": {"Hostname": "web-1", "Labels": {"app": "web"}},
}


@pytest.fixture
def kernel() -> FakeKernel:
    """A host with the process 4711 in a namespace of its own, and `ip netns` web."""
    kernel = FakeKernel()
    kernel.add_namespace("4711", "/proc/4711/ns/net")
    kernel.add_namespace("web")
    return kernel


@contextmanager
def engine(path: Path, answer: Callable[[str], tuple[int, bytes]]) -> Iterator[list[str]]:
    """A container engine's HTTP server on a unix socket; yields what was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            status, body = answer(self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Be quiet."""

        def address_string(self) -> str:
            return "unix"

    server = socketserver.UnixStreamServer(str(path), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _of(document: object, status: int = 200) -> Callable[[str], tuple[int, bytes]]:
    return lambda _: (status, json.dumps(document).encode())


def test_a_process_is_a_sandbox(kernel: FakeKernel) -> None:
    """pid:N is the network namespace that the process is in."""
    box = resolve("pid:4711", kernel)

    assert (box.name, box.kind, box.pid) == ("pid:4711", "pid", 4711)
    assert box.netns == kernel.enter("/proc/4711/ns/net", "pid:4711")


@pytest.mark.parametrize("reference", ["netns:web", "netns:/run/netns/web"])
def test_a_named_namespace_is_a_sandbox(kernel: FakeKernel, reference: str) -> None:
    """By the name that `ip netns` knows, or by any path."""
    box = resolve(reference, kernel)

    assert (box.kind, box.hostname, box.netns.path) == ("netns", "web", "/run/netns/web")


@pytest.mark.parametrize(
    "reference", ["pid:x", "pid:0", "pid:-1", "pid:", "netns:a/b", "lxc:web", "web", ":", "pid:²"]
)
def test_nonsense_is_refused(kernel: FakeKernel, reference: str) -> None:
    """With a hint at what can be said."""
    with pytest.raises(InvalidRequest) as caught:
        resolve(reference, kernel)
    assert caught.value.hint


@pytest.mark.parametrize("reference", ["pid:4712", "netns:db", "netns:/proc/9/ns/net"])
def test_what_is_not_there_is_told(kernel: FakeKernel, reference: str) -> None:
    """No such process, no such namespace."""
    with pytest.raises(NoSuchSandbox) as caught:
        resolve(reference, kernel)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("kind", "variable", "path"),
    [
        ("docker", "DOCKER_HOST", "/containers/my%2Fweb/json"),
        ("podman", "CONTAINER_HOST", "/v4.0.0/libpod/containers/my%2Fweb/json"),
    ],
)
def test_an_engine_is_asked(
    kernel: FakeKernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    kind: str, variable: str, path: str,
) -> None:  # fmt: skip
    """A container's first process tells the namespace; names are quoted on the way."""
    monkeypatch.setenv(variable, f"unix://{tmp_path}/s")
    with engine(tmp_path / "s", _of(CONTAINER)) as asked:
        box = resolve(f"{kind}:my/web", kernel)

    assert asked == [path]
    assert (box.name, box.kind, box.pid, box.hostname) == (f"{kind}:my/web", kind, 4711, "web-1")
    assert box.labels == {"app": "web"}
    assert box.netns.path == "/proc/4711/ns/net"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (_of({"message": "No such container"}, 404), "knows no container"),
        (_of({"message": "boom"}, 500), "boom"),
        (_of({**CONTAINER, "State": {"Pid": 0, "Status": "exited"}}), "exited"),
        (_of({**CONTAINER, "State": {"Pid": 99}}), "can't be seen from here"),
        (_of([]), "does not tell"),
        (lambda _: (200, b"<html>"), "no JSON"),
    ],
)
def test_what_an_engine_can_not_tell_is_said(
    kernel: FakeKernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    answer: Callable[[str], tuple[int, bytes]], message: str,
) -> None:  # fmt: skip
    """Unknown, stopped, elsewhere, broken: each in its own words."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/s")
    with engine(tmp_path / "s", answer), pytest.raises(NoSuchSandbox, match=message):
        resolve("docker:web", kernel)


def test_an_engine_that_is_not_there_is_told(
    kernel: FakeKernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With another way to name the sandbox."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody")
    with pytest.raises(NoSuchSandbox, match="pid:N"):
        resolve("docker:web", kernel)


def test_an_engine_on_another_host_is_refused(
    kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its containers' namespaces are not here."""
    monkeypatch.setenv("DOCKER_HOST", "tcp://192.0.2.1:2376")
    with pytest.raises(InvalidRequest, match="DOCKER_HOST"):
        resolve("docker:web", kernel)


def test_podman_without_a_socket_is_asked_by_its_program(
    kernel: FakeKernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Podman has no daemon that must run."""
    program = tmp_path / "podman"
    program.write_text(
        "#!/bin/sh\n"
        'test "$*" = "container inspect -- web" || exit 125\n'
        f"echo '{json.dumps([CONTAINER])}'\n"
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path))  # this machine may have a podman, too
    monkeypatch.delenv("CONTAINER_HOST", raising=False)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)

    assert resolve("podman:web", kernel).pid == 4711
    with pytest.raises(NoSuchSandbox, match="knows no container"):
        resolve("podman:db", kernel)
    program.unlink()
    with pytest.raises(NoSuchSandbox, match="not here"):
        resolve("podman:web", kernel)


def test_files_say_what_was_committed_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reads the state first and is slow does not write over what another one wrote."""
    read, is_slow, go_on = sandbox_files._files, threading.Event(), threading.Event()

    def read_slowly(state: State, box: Sandbox) -> dict[str, str]:
        found = read(state, box)
        if not is_slow.is_set():
            is_slow.set()
            assert go_on.wait(20)
        return found

    monkeypatch.setattr(sandbox_files, "_files", read_slowly)
    with Net(tmp_path, kernel=FakeKernel()) as net:
        net.create("front", subnets=["198.51.100.0/24"])
        box = net.create_sandbox("web")
        work = partial(sandbox_files.refresh_all, net.engine.state, tmp_path, [box])
        threads = [threading.Thread(target=work) for _ in range(2)]
        threads[0].start()
        assert is_slow.wait(20)
        net.connect("front", "web")
        threads[1].start()
        threads[1].join(0.2)  # it is done by then, or waits
        go_on.set()
        for thread in threads:
            thread.join(20)
        hosts = sandbox_files.folder_of(tmp_path, "web") / "hosts"
        assert "198.51.100.2\tweb" in hosts.read_text()
