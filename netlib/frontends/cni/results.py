"""Results as the versions of the specification write them: read into 1.1.0's form, written out.

Pure. Within netlib a result is a document of version 1.1.0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from ipaddress import ip_address, ip_interface
from typing import Any

from netlib.frontends.cni.refusal import INCOMPATIBLE_VERSION, INVALID_CONFIG, Refusal

Result = dict[str, Any]

VERSIONS = ("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
NEWEST = VERSIONS[-1]
_OLDEST = ("0.1.0", "0.2.0")  # of an earlier plugin's result: read, never written
_NEW_OF_INTERFACES = ("mtu", "socketPath", "pciID")
_NEW_OF_ROUTES = ("mtu", "advmss", "priority", "table", "scope")


def at_least(version: str, least: str) -> bool:
    """Whether a version that is known is `least` or later."""
    return VERSIONS.index(version) >= VERSIONS.index(least)


def check_version(version: str) -> str:
    """`version`, or a Refusal that names the versions that are spoken."""
    if version not in VERSIONS:
        raise Refusal(
            INCOMPATIBLE_VERSION,
            "incompatible CNI versions",
            f"config is {version!r}, plugin supports {list(VERSIONS)}",
        )
    return version


def write(result: Mapping[str, Any], version: str) -> Result:
    """A result in the form of `version`."""
    written: Result = {"cniVersion": version}
    new = at_least(version, "1.1.0")
    interfaces = result.get("interfaces") or []
    if interfaces:
        written["interfaces"] = [
            dict(one) if new else _without(one, _NEW_OF_INTERFACES) for one in interfaces
        ]
    ips = [dict(one) for one in result.get("ips") or []]
    if ips:
        if not at_least(version, "1.0.0"):
            ips = [{"version": str(ip_interface(ip["address"]).version), **ip} for ip in ips]
        written["ips"] = ips
    routes = result.get("routes") or []
    if routes:
        written["routes"] = [dict(one) if new else _without(one, _NEW_OF_ROUTES) for one in routes]
    written["dns"] = dict(result.get("dns") or {})
    return written


def read(document: object, default_version: str, what: str = "prevResult") -> Result:
    """A result of any version, as 1.1.0 has it. Raises Refusal when it can't be one."""
    if not isinstance(document, dict):
        raise Refusal(INVALID_CONFIG, f"{what} is no JSON object")
    version = document.get("cniVersion") or default_version
    if version in _OLDEST:
        return _checked(_of_oldest(document), what)
    check_version(version)
    found: Result = {
        "interfaces": [dict(one) for one in _objects(document, "interfaces", what)],
        "ips": [_without(one, ("version",)) for one in _objects(document, "ips", what)],
        "routes": [dict(one) for one in _objects(document, "routes", what)],
        "dns": _object(document, "dns", what),
    }
    return _checked(found, what)


def _of_oldest(document: Mapping[str, Any]) -> Result:
    """Versions 0.1.0 and 0.2.0 have one address of each family, and no interfaces."""
    ips: list[dict[str, Any]] = []
    routes: list[dict[str, Any]] = []
    for key in ("ip4", "ip6"):
        part = document.get(key)
        if isinstance(part, dict):
            ip = {"address": part.get("ip")}
            if part.get("gateway"):
                ip["gateway"] = part["gateway"]
            ips.append(ip)
            routes += [dict(one) for one in _objects(part, "routes", key)]
    return {"interfaces": [], "ips": ips, "routes": routes, "dns": _object(document, "dns", "")}


def _checked(result: Result, what: str) -> Result:
    count = len(result["interfaces"])
    for ip in result["ips"]:
        _check(ip, "address", ip_interface, what, must=True)
        _check(ip, "gateway", ip_address, what)
        index = ip.get("interface")
        if index is not None and not (type(index) is int and 0 <= index < count):
            raise Refusal(INVALID_CONFIG, f"{what} has no interface {index!r}")
    for route in result["routes"]:
        _check(route, "dst", ip_interface, what, must=True)
        _check(route, "gw", ip_address, what)
    for one in result["interfaces"]:
        if not isinstance(one.get("name"), str):
            raise Refusal(INVALID_CONFIG, f"{what} has an interface without a name")
    return result


def _check(
    part: Mapping[str, Any],
    key: str,
    kind: Callable[[str], object],
    what: str,
    *,
    must: bool = False,
) -> None:
    """Raise Refusal for what is no address; "" is none, as others write it."""
    value = part.get(key)
    if not must and value in (None, ""):
        return
    try:
        if not isinstance(value, str):
            raise TypeError
        kind(value)
    except (ValueError, TypeError) as error:
        raise Refusal(
            INVALID_CONFIG, f"{what}: {key} {value!r} of {dict(part)} is no address"
        ) from error


def _objects(document: Mapping[str, Any], key: str, what: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = _typed(
        document.get(key),
        lambda v: isinstance(v, list) and all(isinstance(one, dict) for one in v),
        f"{what}: {key} is no list of objects",
        [],
    )
    return found


def _object(document: Mapping[str, Any], key: str, what: str) -> dict[str, Any]:
    found: dict[str, Any] = _typed(
        document.get(key), lambda v: isinstance(v, dict), f"{what}: {key} is no object", {}
    )
    return found


def _typed(value: Any, fits: Callable[[Any], bool], message: str, default: Any) -> Any:
    if value is None:
        return default
    if not fits(value):
        raise Refusal(INVALID_CONFIG, message)
    return value


def _without(document: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {key: value for key, value in document.items() if key not in names}
