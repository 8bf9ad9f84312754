"""A network namespace that a client hands over as a descriptor, found in the daemon's own view."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from netlib.errors import NamespaceGone
from netlib.kernel.netns import is_netns, open_netns
from netlib.model import Netns

_OCTAL = re.compile(rb"\\([0-7]{3})")  # as blanks in a path are written there


def absolute(paths: str, pid: int) -> str:
    """A client's paths, one or several with colons between, as from the folder it is in."""
    if all(path.startswith("/") for path in paths.split(":") if path):
        return paths
    try:
        folder = os.readlink(f"/proc/{pid}/cwd")
    except OSError:  # it is gone, or in namespaces that are not seen from here
        return paths
    return ":".join(os.path.join(folder, path) for path in paths.split(":") if path)


def locate(descriptor: int, path: str, name: str) -> Netns:
    """The namespace by a path that this process can open later: the client's, if it is the same.

    A client may see other mounts or processes. Else where it is mounted for us, or that of a
    process which is in it: by that it is known only for as long as the process lives.
    """
    if not is_netns(descriptor):
        raise NamespaceGone(f"{path} is not a network namespace")
    inode = os.fstat(descriptor).st_ino
    for candidate in _candidates(path, inode):
        try:
            opened = open_netns(candidate, name)
        except NamespaceGone:
            continue
        found = os.fstat(opened).st_ino
        os.close(opened)
        if found == inode:
            return Netns(name=name, path=candidate, inode=inode)
    raise NamespaceGone(
        f"the network namespace of {name} is not at {path} for the daemon, nor is a process in it",
        "run the daemon where these namespaces are mounted, or without one",
    )


def _candidates(path: str, inode: int) -> Iterator[str]:
    if path:
        yield path
    yield from _mounted(inode)
    for pid in os.listdir("/proc"):
        if pid.isdigit():
            yield f"/proc/{pid}/ns/net"


def _mounted(inode: int) -> Iterator[str]:
    """Where a network namespace is mounted (proc_pid_mountinfo(5))."""
    with open("/proc/self/mountinfo", "rb") as mounts:
        for mount in mounts:
            _, _, _, root, place, *_ = mount.split(b" ")
            if root == b"net:[%d]" % inode:
                yield os.fsdecode(_OCTAL.sub(lambda found: bytes([int(found[1], 8)]), place))
