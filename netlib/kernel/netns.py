"""Network namespaces: a thread enters one for a moment, mostly to open a socket.

setns(2) moves a thread, not a process, and a socket stays in its namespace whichever thread uses
it later. The caller's own thread enters where nobody can notice; else one of ours does, for each
change of thread costs two that have to be woken.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, partial
from itertools import chain
from queue import SimpleQueue
from typing import Any, TypeVar

from netlib.errors import KernelError, NamespaceGone, NetError, NotPermitted
from netlib.kernel import netlink
from netlib.kernel.procfs import Sysctls
from netlib.model import Netns

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000
_HERE = "/proc/thread-self/ns/net"
OUR_THREADS = "netlib-"  # how the names of all threads that we start begin
_NS_GET_NSTYPE = 0xB703  # ioctl_ns(2)
_IDLE_SOCKETS = 4
# A path that leads nowhere; ESRCH, ENXIO: a process that is ending. All else, such as too many
# open files, says nothing of the namespace, and nothing may be cleaned up because of it.
_GONE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESRCH, errno.ENXIO, errno.EINVAL}


def set_netns(fd: int) -> None:
    """Move the calling thread into a network namespace. Raises OSError."""
    _check(_native("setns")(fd, _CLONE_NEWNET))


def leave_for_new_netns() -> None:
    """Move the calling thread into a new network namespace. Raises OSError."""
    _check(_native("unshare")(_CLONE_NEWNET))


@cache
def _native(name: str) -> Callable[..., int | None]:
    """A system call: os has both from Python 3.12 on, and raises where libc returns -1."""
    found: Callable[..., int | None] | None = getattr(os, name, None)
    if found is None:
        import ctypes

        found = getattr(ctypes.CDLL(None, use_errno=True), name)
        assert found is not None
    return found


def _check(result: int | None) -> None:
    if result:
        import ctypes

        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def is_host(netns: Netns) -> bool:
    """Whether this is the namespace that the kernel was made in: it alone has no path."""
    return not netns.path


class Namespaces:
    """Opens sockets and does work inside network namespaces.

    The host is the namespace of the thread that made this object, wherever later callers are.
    """

    def __init__(self) -> None:
        self.host_fd = os.open(_HERE, os.O_RDONLY | os.O_CLOEXEC)
        self.host_inode = os.fstat(self.host_fd).st_ino
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._idle: dict[int, list[netlink.Socket]] = {}  # by protocol
        self._sysctls: dict[str, int] = {}
        self.sysctls = Sysctls()
        self._closed = False
        self._closing: SimpleQueue[Any] = SimpleQueue()
        self._closer: threading.Thread | None = None

    def close(self) -> None:
        """End the thread and give back all descriptors. Doing it again is harmless."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            idle, self._idle = self._idle, {}
            thread, self._thread = self._thread, None
        if thread is not None and thread.is_alive():
            self._jobs.put(None)
            thread.join()
        for unused in chain.from_iterable(idle.values()):
            unused.close()
        for descriptor in self._sysctls.values():
            os.close(descriptor)
        self.sysctls.close()
        os.close(self.host_fd)

    def close_later(self, closable: Any) -> None:
        """Close what takes long to close, by a thread that nobody waits for."""
        with self._lock:
            if self._closer is None or not self._closer.is_alive():
                self._closing = SimpleQueue()
                self._closer = threading.Thread(
                    target=_close_all, args=(self._closing,), name="netlib-closing", daemon=True
                )
                self._closer.start()
        self._closing.put(closable)

    def open(self, netns: Netns) -> int:
        """A descriptor of a namespace, verified to be the one that is meant. To be closed."""
        if is_host(netns):
            return os.dup(self.host_fd)
        fd = open_netns(netns.path, netns.name)
        if netns.inode and os.fstat(fd).st_ino != netns.inode:
            os.close(fd)
            raise NamespaceGone(f"{netns.path} is not the network namespace of {netns} any more")
        return fd

    def run(self, fd: int, work: Callable[[], T]) -> T:
        """Do `work` in the namespace of a descriptor, and give back what it returns or raises.

        The caller's own thread does it if it is in the host, and the work is to be done there or
        nobody can notice that it is elsewhere; else a thread of ours.
        """
        if self._closed:
            raise KernelError("this kernel was closed")
        if os.stat(_HERE).st_ino == self.host_inode:
            if fd == self.host_fd:
                return work()
            if _is_unseen():
                return self._run_here(fd, work)
        job = _Job(fd, work)
        with self._lock:
            if self._closed:
                raise KernelError("this kernel was closed")
            # A forked child has none of its parent's threads.
            if self._thread is None or not self._thread.is_alive():
                self._jobs = SimpleQueue()
                self._thread = threading.Thread(
                    target=_serve,
                    args=(self.host_fd, self._jobs),
                    name=f"{OUR_THREADS}netns",
                    daemon=True,
                )
                self._thread.start()
            self._jobs.put(job)
        result: T = job.wait()
        return result

    def _run_here(self, fd: int, work: Callable[[], T]) -> T:
        home, setns = self.host_fd, _native("setns")
        result: int | None = None
        try:
            try:
                set_netns(fd)
            except OSError as error:
                raise _no_entry(error) from error
            return work()
        finally:
            # The very next thing is the system call: the handler of a signal, which may raise,
            # runs where a function of Python's begins or after a call, so never before this.
            result = setns(home, _CLONE_NEWNET)
            _check(result)

    def run_in(self, netns: Netns, work: Callable[[], T]) -> T:
        """Do `work` in a network namespace."""
        if is_host(netns):
            return self.run(self.host_fd, work)
        fd = self.open(netns)
        try:
            return self.run(fd, work)
        finally:
            os.close(fd)

    def sysctl(self, path: str) -> str:
        """The host's value of a sysctl, "" if there is none.

        Its file is kept open: it goes on showing the namespace of the thread that opened it.
        """
        descriptor = self._sysctls.get(path)
        if descriptor is None:
            name = f"/proc/sys/{path}"
            if not os.path.exists(name):  # of a module: then it is there for all, or for none
                return ""
            opened = self.run(self.host_fd, lambda: os.open(name, os.O_RDONLY | os.O_CLOEXEC))
            descriptor = self._sysctls.setdefault(path, opened)
            if descriptor != opened:
                os.close(opened)
        return os.pread(descriptor, 4096, 0).decode(errors="replace").strip()

    @contextmanager
    def host_socket(self, protocol: int = netlink.ROUTE) -> Iterator[netlink.Socket]:
        """A netlink socket of the host, for the caller alone."""
        # Several, because a deletion holds its socket while it waits for RCU.
        with self._lock:
            idle = self._idle.get(protocol)
            found = idle.pop() if idle else None
        if found is None:
            found = self.run(self.host_fd, partial(netlink.Socket, protocol))
        try:
            yield found
        except netlink.NoAnswer:
            found.close()
            raise
        except NetError:
            self._keep(found, protocol)
            raise
        except BaseException:
            found.close()  # an answer may be under way
            raise
        else:
            self._keep(found, protocol)

    def _keep(self, used: netlink.Socket, protocol: int) -> None:
        with self._lock:
            idle = self._idle.setdefault(protocol, [])
            if not self._closed and len(idle) < _IDLE_SOCKETS:
                idle.append(used)
                return
        used.close()


def open_netns(path: str, name: str) -> int:
    """A descriptor of the network namespace behind a path. NamespaceGone if there is none."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # it may be a pipe
    except PermissionError as error:
        raise NotPermitted(
            f"the network namespace of {name} at {path} can't be opened", "run it as root"
        ) from error
    except OSError as error:
        if error.errno in _GONE:
            raise NamespaceGone(f"{name} has no network namespace at {path}") from error
        raise KernelError(
            f"the network namespace of {name} at {path} can't be opened: {error.strerror}"
        ) from error
    if not is_netns(fd):
        os.close(fd)
        raise NamespaceGone(f"{path} is not a network namespace")
    return fd


def is_netns(descriptor: int) -> bool:
    """Whether a descriptor is one of a network namespace.

    An `ip netns` name whose mount is gone is left as an empty, ordinary file.
    """
    import fcntl

    try:
        return fcntl.ioctl(descriptor, _NS_GET_NSTYPE) == _CLONE_NEWNET
    except OSError:
        return False


def _is_unseen() -> bool:
    """Whether no other thread can notice that the calling one is elsewhere for a moment.

    /proc/net, and /proc/PID/ns/net, show where a process's first thread is, to all others.
    """
    first = threading.main_thread()
    return threading.current_thread() is not first or all(
        thread is first or thread.name.startswith(OUR_THREADS) for thread in threading.enumerate()
    )


class _Job:
    """Work for the thread, and a lock that is released when it is done."""

    __slots__ = ("_done", "_error", "_result", "fd", "work")

    def __init__(self, fd: int, work: Callable[[], Any]) -> None:
        self.fd = fd
        self.work = work
        self._done = threading.Lock()
        self._done.acquire()
        self._result: Any = None
        self._error: BaseException | None = None

    def do(self) -> None:
        try:
            self._result = self.work()
        except BaseException as error:  # belongs to the thread that waits
            self._error = error

    def fail(self, error: BaseException) -> None:
        self._error = error

    def finish(self) -> None:
        self._done.release()

    def wait(self) -> Any:
        try:
            self._done.acquire()
        except BaseException:
            # An interrupt. The thread may be about to use what the caller is about to close.
            self._done.acquire()
            raise
        if self._error is not None:
            raise self._error
        return self._result


def _serve(host_fd: int, jobs: SimpleQueue[_Job | None]) -> None:
    here = os.stat(_HERE).st_ino  # that of whoever was first to call

    def enter(fd: int) -> None:
        nonlocal here
        inode = os.fstat(fd).st_ino
        if inode != here:
            set_netns(fd)
            here = inode

    while (job := jobs.get()) is not None:
        try:
            enter(job.fd)
        except OSError as error:
            job.fail(_no_entry(error))
        else:
            job.do()
        with suppress(OSError):  # the next job tries again, and tells if it can't
            enter(host_fd)  # a thread that stayed would keep the namespace alive
        job.finish()


def _close_all(waiting: SimpleQueue[Any]) -> None:
    while True:
        waiting.get().close()


def _no_entry(error: OSError) -> NetError:
    if error.errno == errno.EPERM:
        return NotPermitted("the network namespace can't be entered", "run it as root")
    return KernelError(f"the network namespace can't be entered: {error.strerror}")
