"""nft transactions: in this process by libnftables, or by the program where there is none.

In-process a transaction costs 0.3 ms, a started program 4 to 20 (libnftables(3)).
"""

from __future__ import annotations

import ctypes
import errno
import os
import threading
from typing import Any, Protocol

from netlib.errors import KernelError
from netlib.kernel.netfilter.program import Place

LIBRARY = "libnftables.so.1"

# enum nft_output_flags of nftables/libnftables.h
_JSON = 1 << 4
_NUMERIC_PROTOCOL = 1 << 7

# The parser under a context is not said to be safe for two threads, whatever the contexts.
_LIBRARY_LOCK = threading.Lock()

_KNOWN = (
    errno.EEXIST,
    errno.ENOENT,
    errno.EPERM,
    errno.EACCES,
    errno.EBUSY,
    errno.ENOTEMPTY,
    errno.ENOMEM,
    errno.EINVAL,
    errno.EOPNOTSUPP,
    errno.EAFNOSUPPORT,
)


class NftFailed(KernelError):
    """nft refused a transaction.

    `number` is the errno, 0 where the text has none. `text` is nft's own, `place` the words
    of a command that it points at. `by_kernel` tells a refusal of the kernel's from what nft
    saw itself, such as a table that is not there.
    """

    def __init__(self, text: str, commands: str = "") -> None:
        rows = text.strip().splitlines() or ["no reason given"]
        super().__init__(f"nft: {rows[0].removeprefix('Error: ')}")
        self.text = text
        self.number = next((e for e in _KNOWN if os.strerror(e) in text), 0)
        self.by_kernel = "Could not process rule" in text
        # The carets count from the commands' start, if those are one line.
        carets = next((row for row in rows if row.strip() and not row.strip(" ^")), "")
        self.place = commands[carets.find("^") : carets.rfind("^") + 1] if carets else ""


class Nft(Protocol):
    """Runs nft's commands in one network namespace."""

    def run(self, commands: str) -> None:
        """All the commands in one transaction, or NftFailed and none."""

    def check(self, commands: str) -> None:
        """NftFailed where the kernel would refuse the commands; nothing is done."""

    def listed(self, command: str) -> list[dict[str, Any]]:
        """What a list command finds (libnftables-json(5))."""

    def close(self) -> None:
        """Give back what is held."""


class Library:
    """libnftables in this process. Its socket stays in the namespace it was opened in."""

    def __init__(self) -> None:
        self._lib = _load()
        self._context: int | None = self._lib.nft_ctx_new(0)
        if not self._context:
            raise KernelError("libnftables can not open its netlink socket")
        self._lib.nft_ctx_buffer_output(self._context)
        self._lib.nft_ctx_buffer_error(self._context)

    def run(self, commands: str) -> None:
        """All the commands in one transaction, or NftFailed and none."""
        self._do(commands, 0)

    def check(self, commands: str) -> None:
        """NftFailed where the kernel would refuse the commands; nothing is done."""
        self._do(commands, 0, dry_run=True)

    def listed(self, command: str) -> list[dict[str, Any]]:
        """What a list command finds (libnftables-json(5))."""
        return _objects(self._do(command, _JSON | _NUMERIC_PROTOCOL))

    def close(self) -> None:
        """Free the context and its socket."""
        with _LIBRARY_LOCK:
            if self._context:
                self._lib.nft_ctx_free(self._context)
                self._context = None

    def _do(self, commands: str, flags: int, *, dry_run: bool = False) -> str:
        with _LIBRARY_LOCK:
            if not self._context:
                raise KernelError("this firewall is closed")
            self._lib.nft_ctx_output_set_flags(self._context, flags)
            self._lib.nft_ctx_set_dry_run(self._context, dry_run)
            failed = self._lib.nft_run_cmd_from_buffer(self._context, commands.encode())
            # Both buffers are read, because reading empties them.
            out = self._lib.nft_ctx_get_output_buffer(self._context)
            err = self._lib.nft_ctx_get_error_buffer(self._context)
        if failed:
            raise NftFailed(err.decode(errors="replace"), commands)
        text: str = out.decode(errors="replace")
        return text


class Program:
    """The program nft, started for each transaction."""

    def __init__(self, place: Place) -> None:
        self._place = place

    def run(self, commands: str) -> None:
        """All the commands in one transaction, or NftFailed and none."""
        done = self._place.run(["nft", "-f", "-"], commands + "\n")
        if done.status:
            raise NftFailed(done.err, commands)

    def check(self, commands: str) -> None:
        """NftFailed where the kernel would refuse the commands; nothing is done."""
        done = self._place.run(["nft", "-c", "-f", "-"], commands + "\n")
        if done.status:
            raise NftFailed(done.err, commands)

    def listed(self, command: str) -> list[dict[str, Any]]:
        """What a list command finds (libnftables-json(5))."""
        done = self._place.run(["nft", "-j", "-p", *command.split()])
        if done.status:
            raise NftFailed(done.err)
        return _objects(done.out)

    def close(self) -> None:
        """Nothing is held."""


def open_nft(place: Place) -> Nft:
    """The library where it can be loaded, else the program. KernelError when both lack."""
    try:
        return place.call(Library)
    except OSError:
        program = Program(place)
        program.listed("list chains")
        return program


def _objects(text: str) -> list[dict[str, Any]]:
    import json  # for reading back only, which no attach does

    found: list[dict[str, Any]] = json.loads(text)["nftables"] if text.strip() else []
    return found


def _load() -> Any:
    lib = ctypes.CDLL(LIBRARY)
    lib.nft_ctx_new.restype = ctypes.c_void_p
    lib.nft_ctx_new.argtypes = [ctypes.c_uint32]
    lib.nft_ctx_free.restype = None
    lib.nft_ctx_output_set_flags.restype = None
    lib.nft_ctx_output_set_flags.argtypes = [ctypes.c_void_p, ctypes.c_uint]
    lib.nft_ctx_set_dry_run.restype = None
    lib.nft_ctx_set_dry_run.argtypes = [ctypes.c_void_p, ctypes.c_bool]
    lib.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
        getattr(lib, name).restype = ctypes.c_char_p
    for name in (
        "nft_ctx_free",
        "nft_ctx_buffer_output",
        "nft_ctx_buffer_error",
        "nft_ctx_get_output_buffer",
        "nft_ctx_get_error_buffer",
    ):
        getattr(lib, name).argtypes = [ctypes.c_void_p]
    return lib
