"""Where the relay process is reached, and how the one process of a state is started."""

from __future__ import annotations

import fcntl
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from netlib.errors import KernelError, NotPermitted

SOCKET = "relay.sock"
LOCK = "relay.lock"
LOG = "relay.log"
_BACKLOG = 128
_PROGRAM = str(Path(__file__).with_name("__main__.py"))
# What the process notes are faults of its own: few, or something is very wrong.
_LOG_BYTES = 1 << 20


def reach(folder: Path) -> socket.socket | None:
    """A connection to the relay process of a state, None where none listens."""
    sock = socket.socket(socket.AF_UNIX)
    try:
        with _short(folder) as path:
            sock.connect(path)
    except BaseException as error:
        sock.close()
        if isinstance(error, FileNotFoundError | ConnectionRefusedError | ConnectionResetError):
            return None
        if isinstance(error, PermissionError):
            raise _not_permitted(folder, error) from error
        raise
    return sock


def start(folder: Path) -> bool:
    """Start the process; False when another one is starting or ending this moment.

    It can be asked right away: its socket listens before it runs.
    """
    from netlib.logs import appended  # mostly a process is there

    try:
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # The lock is handed on and goes with the process, however that ends (flock(2)).
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with _listening(folder) as sock, appended(folder / LOG, _LOG_BYTES) as log:
                _run([str(folder), str(sock.fileno()), str(lock)], (sock.fileno(), lock), log)
        finally:
            os.close(lock)
    except BlockingIOError:
        return False
    except PermissionError as error:
        raise _not_permitted(folder, error) from error
    except OSError as error:
        raise KernelError(
            f"the relay process can't be started in {folder}: {error.strerror}",
            "choose a folder that can be written to with --state-dir",
        ) from error
    return True


def _run(arguments: list[str], descriptors: tuple[int, ...], log: int) -> None:
    """Run the program, which leaves its work to a child of its own and ends."""
    import subprocess  # mostly a process is there

    done = subprocess.run(
        [sys.executable or "python3", "-I", "-S", _PROGRAM, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        pass_fds=descriptors,
        cwd="/",
        start_new_session=True,
        check=False,
    )
    if done.returncode:
        raise KernelError(f"the relay process ended with status {done.returncode}")


@contextmanager
def _listening(folder: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as sock, _short(folder) as path:
        # Before it has a name: bind(2) gives the name the socket's own mode, less the umask.
        os.fchmod(sock.fileno(), 0o600)
        with suppress(FileNotFoundError):
            os.unlink(path)  # of a process that was killed: its lock is ours now
        sock.bind(path)
        sock.listen(_BACKLOG)
        yield sock


@contextmanager
def _short(folder: Path) -> Iterator[str]:
    """The socket's path by way of /proc: a socket's address has 108 bytes (unix(7))."""
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{SOCKET}"
    finally:
        os.close(descriptor)


def _not_permitted(folder: Path, error: OSError) -> NotPermitted:
    return NotPermitted(
        f"the relay process of {folder} can't be reached: {error.strerror}",
        "run as root, or choose a folder of your own with --state-dir",
    )
