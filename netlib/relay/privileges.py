"""The relay process gives up what it does not need: it speaks with anybody who comes."""

from __future__ import annotations

import ctypes
import os
import struct

# linux/capability.h, linux/prctl.h, linux/landlock.h, asm-generic/unistd.h
_CAP_NET_BIND_SERVICE = 10
_CAPABILITY_VERSION_3 = 0x20080522
_PR_CAPBSET_DROP = 24
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_PR_SET_DUMPABLE = 4
_PR_SET_NAME = 15
_PR_SET_NO_NEW_PRIVS = 38
_SYS_LANDLOCK_CREATE_RULESET = 444
_SYS_LANDLOCK_ADD_RULE = 445
_SYS_LANDLOCK_RESTRICT_SELF = 446
_LANDLOCK_RULE_PATH_BENEATH = 1
_ALL_OF_ABI_1 = (1 << 13) - 1  # execute, read, write, remove, make: landlock(7)
_REMOVE_FILE = 1 << 5


def drop(folder: int) -> None:
    """Keep the right to bind ports below 1024, and no file but those below `folder` to remove.

    Low ports may be wanted at any time. The user stays the same, because only the owner of
    the state asks for relays. What a kernel has not (Landlock came with Linux 5.13 and can be
    switched off) is done without.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NAME, b"netlib-relay", 0, 0, 0)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)  # nobody of this user attaches to it (ptrace(2))
    for capability in range(64):
        if capability != _CAP_NET_BIND_SERVICE:
            libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    _keep_capability(libc, 1 << _CAP_NET_BIND_SERVICE)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0:
        _restrict_files(libc, folder)


def _keep_capability(libc: ctypes.CDLL, kept: int) -> None:
    header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
    data = ctypes.create_string_buffer(24)
    if libc.capget(header, data) == 0:
        _, permitted, _, _, _, _ = struct.unpack("6I", data.raw)
        mine = permitted & kept  # what is not held can't be kept
        if libc.capset(header, struct.pack("6I", mine, mine, 0, 0, 0, 0)) == 0:
            return
    number = ctypes.get_errno()
    raise OSError(number, f"capabilities can't be given up: {os.strerror(number)}")


def _restrict_files(libc: ctypes.CDLL, folder: int) -> None:
    rules = struct.pack("Q", _ALL_OF_ABI_1)
    ruleset = libc.syscall(_SYS_LANDLOCK_CREATE_RULESET, rules, len(rules), 0)
    if ruleset < 0:
        return
    try:
        beneath = struct.pack("=Qi", _REMOVE_FILE, folder)
        libc.syscall(_SYS_LANDLOCK_ADD_RULE, ruleset, _LANDLOCK_RULE_PATH_BENEATH, beneath, 0)
        libc.syscall(_SYS_LANDLOCK_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)
