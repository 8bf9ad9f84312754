"""Putting the plugin where a runtime looks for it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from netlib.driver import Capabilities
from netlib.errors import InvalidRequest, NotPermitted, Unsupported
from netlib.model import Network
from netlib.settings import state_folder

NAME = "netlib"
SAMPLE = "netlib.conflist.sample"
PACKAGE = Path(__file__).resolve().parents[2]
SHIM = PACKAGE / "_cni_shim"
SOURCE = PACKAGE / "_cni_shim.c"
SCRIPT = Path(__file__).with_name("script.py")
CAPABILITIES = ("portMappings", "ips", "mac", "dns", "aliases", "ipRanges")
# Where the compiled program keeps its settings: filled up with zeros to their full length.
_SLOT_BYTES = 512
_SLOTS = (b"@state-dir@", b"@fallback@")


def conflist(network: str, capabilities: Iterable[str] = CAPABILITIES) -> dict[str, Any]:
    """A conflist that joins a network, with what runtimes may ask for there."""
    plugin = {"type": NAME, "network": network, "capabilities": dict.fromkeys(capabilities, True)}
    return {"cniVersion": "1.0.0", "name": network, "plugins": [plugin]}


def capabilities_on(network: Network, able: Capabilities) -> tuple[str, ...]:
    """What runtimes may ask for on a network: what is not declared they don't pass on.

    Raises Unsupported where containers can't be attached.
    """
    if not able.interface:
        raise Unsupported(
            f"containers of a runtime can't be attached to {network.name}",
            "choose a network that gives them an interface, see: net ls",
        )
    refused = {
        "portMappings": network.internal or not able.publishes,
        "ips": able.addressing == "none",
        "ipRanges": able.addressing == "none",
        "mac": not able.own_mac or able.mac_of_address,
    }
    return tuple(name for name in CAPABILITIES if not refused.get(name))


def install(
    folder: str | Path, state_dir: str | Path | None, *, script: bool = False, dry_run: bool = False
) -> list[str]:
    """Write the plugin and a sample into `folder`; the paths written.

    What is there is replaced at once, never half: a runtime may call it any moment.
    """
    target = Path(folder)
    state = str(state_folder(state_dir).absolute())
    files = {NAME: (_script(state), 0o755)}
    if not script and SHIM.exists():
        files = {NAME: (_program(state, target / f"{NAME}.py"), 0o755),
                 f"{NAME}.py": (_script(state), 0o755)}  # fmt: skip
    sample = json.dumps(conflist("my-net"), indent=2) + "\n"
    files[SAMPLE] = (sample.encode(), 0o644)
    written = [str(target / name) for name in files]
    if not dry_run:
        try:
            target.mkdir(parents=True, exist_ok=True)
            for name, (content, mode) in files.items():
                _replace(target / name, content, mode)
        except OSError as error:
            raise NotPermitted(
                f"the plugin can't be written to {target}: {error.strerror}",
                "run as root, or name a folder that can be written to",
            ) from error
    return written


def _script(state: str) -> bytes:
    """The lean script, with its interpreter, its package and its state filled in."""
    text = SCRIPT.read_text()
    return (
        text.replace("#!/usr/bin/python3 -IS", f"#!{sys.executable} -IS", 1)
        .replace('"@state-dir@"', repr(state), 1)
        .replace('"@path@"', repr(_path()), 1)
        .encode()
    )


def _path() -> list[str]:
    """Where netlib and what it needs are found, for an interpreter without site-packages."""
    found = [str(PACKAGE.parent), *(p for p in sys.path if p.endswith("-packages"))]
    return list(dict.fromkeys(found))


def _program(state: str, fallback: Path) -> bytes:
    content = SHIM.read_bytes()
    for slot, value in zip(_SLOTS, (state, str(fallback.absolute())), strict=True):
        packed = os.fsencode(value)
        if len(packed) >= _SLOT_BYTES:
            raise InvalidRequest(f"{value} is too long a path", "choose a shorter one")
        start = content.index(slot)
        content = (
            content[:start] + packed.ljust(_SLOT_BYTES, b"\0") + content[start + _SLOT_BYTES :]
        )
    return content


def _replace(path: Path, content: bytes, mode: int) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_bytes(content)
        draft.chmod(mode)
        draft.rename(path)
    finally:
        draft.unlink(missing_ok=True)


__all__ = ["CAPABILITIES", "capabilities_on", "conflist", "install"]
