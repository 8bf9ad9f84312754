#!/usr/bin/python3 -IS
"""The CNI plugin as a script: asks the daemon, else does it itself.

Nothing is imported that a call which the daemon answers can do without: a runtime waits for
this (`json`, `socket` and `os` would cost as much as all the rest). Installed by `net cni
install`, which fills in the two names below; NETLIB_STATE_DIR counts more.
"""

import _socket
import posix
import sys
from _json import encode_basestring_ascii as quoted

STATE = "@state-dir@"
PATH = "@path@"
PATIENCE_SECONDS = 5
_READ = posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NONBLOCK
_STUCK = -1  # no exit status: the daemon is there and stands still


def call() -> int:
    """Serve one call; the exit status."""
    environment = {key.decode("utf-8", "surrogateescape"): value.decode("utf-8", "surrogateescape")
                   for key, value in posix.environ.items()
                   if key.startswith(b"CNI_") or key == b"PATH"}  # fmt: skip
    state = posix.environ.get(b"NETLIB_STATE_DIR", b"").decode() or STATE
    stdin = b"" if posix.isatty(0) else b"".join(iter(lambda: posix.read(0, 1 << 16), b""))
    # The compiled program found no daemon, or lost it: then it has named the call.
    named = posix.environ.get(b"NETLIB_OPERATION", b"").decode()
    operation = named or posix.urandom(16).hex()
    status = _STUCK if b"NETLIB_STUCK" in posix.environ else None
    if not named and environment.get("CNI_COMMAND", "") not in ("", "VERSION"):
        status = by_daemon(environment, stdin, operation, state)
        if status is not None and status != _STUCK:
            return status
    sys.path[:0] = PATH
    from netlib.frontends.cni.program import here

    return here(environment, stdin, operation, state, stuck=status == _STUCK)


def by_daemon(environment: dict[str, str], stdin: bytes, operation: str, state: str) -> int | None:
    """Have the daemon do it and print its answer; None where there is none to be had."""
    opened = []
    is_status = environment.get("CNI_COMMAND") == "STATUS"
    try:
        # Whether it is well is the question of STATUS.
        daemon = dialled(state, 1 if is_status else PATIENCE_SECONDS)
        rights = []
        if environment.get("CNI_NETNS"):
            try:
                netns = posix.open(environment["CNI_NETNS"], _READ)
            except OSError:
                pass  # the daemon tells what that means for this command
            else:
                opened.append(netns)
                rights = [
                    (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, netns.to_bytes(4, sys.byteorder))
                ]
        members = ",".join(quoted(k) + ":" + quoted(v) for k, v in environment.items())
        line = f'{{"version":1,"do":"cni","operation":"{operation}","environment":{{{members}}}'
        message = f'{line},"body":{len(stdin)}}}\n'.encode() + stdin
        while message:
            message = message[daemon.sendmsg([message], rights) :]
            rights = []
        return printed(daemon, "" if is_status else state)
    except BlockingIOError:  # it waited for longer than the socket was told to
        return None if is_status else _STUCK
    except OSError:
        return None
    finally:
        for descriptor in opened:
            posix.close(descriptor)


def dialled(state: str, seconds: int) -> _socket.socket:
    """A connection that waits for the daemon for so long at a time, then BlockingIOError."""
    daemon = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    timeval = seconds.to_bytes(8, sys.byteorder) + bytes(8)  # of settimeout() connect() has no use
    daemon.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDTIMEO, timeval)
    daemon.setsockopt(_socket.SOL_SOCKET, _socket.SO_RCVTIMEO, timeval)
    folder = posix.open(state, posix.O_PATH | posix.O_CLOEXEC)
    try:
        daemon.connect(f"/proc/self/fd/{folder}/netlib.sock")
    finally:
        posix.close(folder)
    return daemon


def heard(daemon: _socket.socket, state: str) -> bytes:
    """More of the answer; a daemon that is at it is waited for for as long as it lives."""
    while True:
        try:
            return daemon.recv(1 << 16)
        except BlockingIOError:
            if not state:
                raise
        try:
            other = dialled(state, PATIENCE_SECONDS)
            other.send(b'{"version":1,"do":"ping"}\n')
            other.recv(1 << 16)
        except BlockingIOError:
            raise
        except OSError:
            pass  # it ends, after what it has begun


def printed(daemon: _socket.socket, state: str) -> int | None:
    """Print the answer's body; its status."""
    answer = b""
    while b"\n" not in answer:
        part = heard(daemon, state)
        if not part:
            return None
        answer += part
    line, _, body = answer.partition(b"\n")
    numbers = {}
    for name in (b"status", b"body"):
        digits = line.partition(b'"' + name + b'":')[2]
        end = 0
        while digits[end : end + 1].isdigit():
            end += 1
        numbers[name] = int(digits[:end] or b"0")
    if b'"status":' not in line:
        return None  # of another version: it did nothing
    while len(body) < numbers[b"body"]:
        part = heard(daemon, state)
        if not part:
            return None
        body += part
    while body:
        body = body[posix.write(1, body) :]
    return numbers[b"status"]


sys.exit(call())
