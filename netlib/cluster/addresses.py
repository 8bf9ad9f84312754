"""Which of its addresses a host uses in a cluster. Pure: given all that it has."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address

from netlib import names
from netlib.errors import InvalidAddress, NoSuchDevice, NotLocal
from netlib.kernel.own_addresses import OwnAddress
from netlib.model import IPAddress

_FEW = 6


def choose(asked: str, own: Sequence[OwnAddress], option: str) -> IPAddress:
    """The host's address that `asked` names: an address, a device, or nothing for the only one.

    `option` is what messages call the place where it was asked for. Raises NotLocal,
    NoSuchDevice, InvalidAddress.
    """
    usable = [one for one in own if _reachable(one)]
    if not asked:
        return _only(usable, option, "this host")
    try:
        address = ip_address(asked)
    except ValueError:
        return _of_device(asked, own, usable, option)
    if address.is_unspecified or address.is_multicast:
        raise InvalidAddress(
            f"{address} is no address that others could reach",
            f"give one of the host's own{_list(usable)}",
        )
    if not any(address == one.address.ip for one in own):
        raise NotLocal(f"{address} is not an address of this host", f"it has{_list(usable)}")
    return address


def place(text: str, default_port: int, option: str) -> tuple[str, int]:
    """A host, address or device and a port: `ADDR`, `ADDR:PORT`, `[V6]:PORT`, `V6`."""
    host, colon, port = text.rpartition(":")
    if text.startswith("[") and text.endswith("]"):
        return text[1:-1], default_port
    if not colon or _is_address(text):
        return text, default_port
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise InvalidAddress(f"{option}: {port!r} is no port", f"write {option} HOST:PORT")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _of_device(
    name: str, own: Sequence[OwnAddress], usable: Sequence[OwnAddress], option: str
) -> IPAddress:
    if not any(one.device == name for one in own):
        raise NoSuchDevice(
            f"{name!r} is neither an address nor a network device with one",
            f"this host has{_list(usable)}",
        )
    return _only([one for one in usable if one.device == name], option, f"device {name}")


def _only(found: Sequence[OwnAddress], option: str, whose: str) -> IPAddress:
    """The only one; of both families, IPv4's."""
    for version in (4, 6):
        fits = [one for one in found if one.address.version == version]
        if len(fits) == 1:
            return fits[0].address.ip
        if fits:
            raise NotLocal(
                f"{whose} has several addresses, and others must know which",
                f"choose with {option}: it has{_list(fits)}",
            )
    raise NotLocal(f"{whose} has no address that others could reach", "give it one first")


def _reachable(one: OwnAddress) -> bool:
    """Whether others may reach it: it is not one of this host alone, nor of a network of ours."""
    ours = one.device.startswith((names.bridge(""), names.shim("")))
    return not (ours or one.address.ip.is_loopback or one.address.ip.is_link_local)


def _list(found: Sequence[OwnAddress]) -> str:
    shown = ", ".join(f"{one.address.ip} ({one.device})" for one in found[:_FEW])
    more = f" and {len(found) - _FEW} more" if len(found) > _FEW else ""
    return f" {shown}{more}" if found else " none"


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
