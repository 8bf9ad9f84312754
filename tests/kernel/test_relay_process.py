"""The relay process: one for each state, started when needed, gone when not, with few rights."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.host import Host
from support.patience import eventually
from support.relay import WEB6, relay, relay_processes, web
from support.traffic import answered, serve

from netlib.errors import KernelError, NotPermitted
from netlib.plan import Create, Delete
from netlib.relay.door import RelayDoor

pytestmark = pytest.mark.kernel

ONE = relay("::1", 8080, WEB6)
OTHER = relay("::1", 8081, WEB6)


def test_it_starts_with_the_first_relay_and_ends_with_the_last(host: Host) -> None:
    """In between it is one process; before and after there is none, and no socket."""
    door = RelayDoor(host.state_dir)
    assert not relay_processes(host)

    door.do([Create(ONE)])
    (first,) = relay_processes(host)
    door.do([Create(OTHER)])
    door.do([Delete(ONE)])
    assert relay_processes(host) == [first]

    door.do([Delete(OTHER)])
    eventually(lambda: not relay_processes(host))
    assert not (host.state_dir / "relay.sock").exists()


def test_asking_and_removing_start_nothing(host: Host) -> None:
    """Only a relay is worth a process."""
    door = RelayDoor(host.state_dir)

    door.observe([ONE])
    door.marked()
    door.remove([Delete(ONE)])

    assert not relay_processes(host)
    assert not list(host.state_dir.iterdir())


def test_a_relay_that_can_not_be_leaves_no_process(host: Host) -> None:
    """A first relay whose port is taken: refused, and nothing runs on for it."""
    door = RelayDoor(host.state_dir)
    with serve(host.place, 8080, address="::1"), pytest.raises(KernelError, match="8080"):
        door.do([Create(ONE)])

    eventually(lambda: not relay_processes(host))


def test_it_can_come_and_go_quickly(host: Host) -> None:
    """Who finds the old process ending waits for the new one."""
    door = RelayDoor(host.state_dir)
    for _ in range(20):
        door.do([Create(ONE)])
        door.do([Delete(ONE)])

    assert door.marked() == []


def test_nothing_is_there_after_a_kill_and_all_can_come_back(host: Host) -> None:
    """What was killed is seen to be gone, so a repair makes it again."""
    door = RelayDoor(host.state_dir)
    door.do([Create(ONE), Create(OTHER)])
    (pid,) = relay_processes(host)

    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not relay_processes(host))

    assert door.observe([ONE, OTHER]) == []
    assert door.marked() == []
    door.remove([Delete(ONE)])
    with serve(web(host), 80, address=WEB6):
        door.do([Create(ONE), Create(OTHER)])
        assert answered(host.place, "::1", 8080)


def test_many_processes_share_one(host: Host) -> None:
    """Eight at once, each with relays of its own coming and going: none is lost, one process."""
    program = (
        "import sys; from pathlib import Path\n"
        "from support.relay import relay, WEB6\n"
        "from netlib.plan import Create, Delete\n"
        "from netlib.relay.door import RelayDoor\n"
        "door, first = RelayDoor(Path(sys.argv[1])), int(sys.argv[2])\n"
        "for _ in range(5):\n"
        "    nouns = [relay('::1', first + n, WEB6) for n in range(3)]\n"
        "    door.do([Create(noun) for noun in nouns])\n"
        "    assert door.observe(nouns) == nouns\n"
        "    door.do([Delete(noun) for noun in nouns])\n"
        "door.do([Create(nouns[0])])\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(host.state_dir), str(20000 + 10 * n)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for n in range(8)
    ]
    said = [process.communicate(timeout=40)[1] for process in started]

    assert said == [""] * 8
    assert len(RelayDoor(host.state_dir).marked()) == 8
    assert len(relay_processes(host)) == 1


def test_it_is_nobodys_zombie(host: Host) -> None:
    """A program that uses the library has no child more, neither running nor ended."""
    door = RelayDoor(host.state_dir)
    door.do([Create(ONE)])
    (pid,) = relay_processes(host)
    door.do([Delete(ONE)])

    eventually(lambda: not Path("/proc", str(pid)).exists())


def test_it_keeps_the_right_to_bind_low_ports_and_no_other(host: Host) -> None:
    """No other capability, none to be had by exec, and low ports still work later on."""
    door = RelayDoor(host.state_dir)
    door.do([Create(ONE)])
    (pid,) = relay_processes(host)
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )

    for kind in ("CapEff", "CapPrm", "CapBnd"):
        assert int(status[kind], 16) == 1 << 10  # CAP_NET_BIND_SERVICE
    for kind in ("CapInh", "CapAmb"):
        assert int(status[kind], 16) == 0
    assert status["NoNewPrivs"] == "1"
    with serve(web(host), 80, address=WEB6):
        door.do([Create(relay("::1", 80, WEB6))])
        assert answered(host.place, "::1", 80)


def test_another_network_namespace_is_refused(host: Host) -> None:
    """Its sockets are in one namespace: who asks from another means other ports."""
    door = RelayDoor(host.state_dir)
    door.do([Create(ONE)])

    with pytest.raises(KernelError, match="another network namespace"):
        host.sandbox("web").call(lambda: door.do([Create(OTHER)]))
    assert door.marked() == [ONE]


def test_its_socket_is_for_its_user_only(host: Host) -> None:
    """Mode 0600 from the first moment on; what it notes is not for others either."""
    RelayDoor(host.state_dir).do([Create(ONE)])

    for name in ("relay.sock", "relay.lock", "relay.log"):
        assert (host.state_dir / name).stat().st_mode & 0o777 == 0o600


def test_the_path_of_the_state_may_be_long(host: Host) -> None:
    """Longer than the address of a unix socket can be (108 bytes)."""
    folder = host.state_dir / ("long" * 30) / ("longer" * 20)
    folder.mkdir(parents=True)
    door = RelayDoor(folder)

    door.do([Create(ONE)])

    assert door.marked() == [ONE]


def test_a_folder_that_is_not_there_is_named(host: Host) -> None:
    """Nothing is there, and nothing can be made: an error that says where."""
    door = RelayDoor(host.state_dir / "absent")

    assert door.marked() == []
    with pytest.raises(KernelError, match="absent"):
        door.do([Create(ONE)])


def test_nonsense_on_its_socket_does_no_harm(host: Host) -> None:
    """What is no request is answered with an error, or not at all; the relays stay."""
    import socket

    door = RelayDoor(host.state_dir)
    door.do([Create(ONE)])
    for line in (b"{\n", b"[]\n", b"{}\n", b'{"netns": 0}\n', b"half", b"\xff\n"):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(host.state_dir / "relay.sock"))
            sock.sendall(line)
            sock.shutdown(socket.SHUT_WR)
            sock.settimeout(5)
            answer = b"".join(iter(lambda s=sock: s.recv(65536), b""))
        assert answer == b"" or b'"error"' in answer

    assert door.marked() == [ONE]
    assert (host.state_dir / "relay.log").read_text() == ""


def test_the_errors_of_relays_are_ours() -> None:
    """Every code that the process answers with is a class of errors."""
    from netlib.relay.door import _ERRORS

    assert all(issubclass(shape, KernelError | NotPermitted) for shape in _ERRORS.values())
    assert all(shape("").code == code for code, shape in _ERRORS.items())
