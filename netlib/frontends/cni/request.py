"""What a runtime asks for, as CNI_* variables say it (CNI specification 1.1.0, "Parameters")."""

from __future__ import annotations

import re
from collections.abc import Mapping

from netlib.errors import InvalidName
from netlib.frontends.cni.refusal import INVALID_ENVIRONMENT, Refusal
from netlib.names import check_device
from netlib.values import dataclass, field

COMMANDS = ("ADD", "DEL", "CHECK", "STATUS", "GC", "VERSION")
SANDBOX_PREFIX = "cni-"
_NEEDED: Mapping[str, tuple[str, ...]] = {
    "ADD": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    "CHECK": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    "DEL": ("CNI_CONTAINERID", "CNI_IFNAME"),
    "GC": ("CNI_PATH",),
}
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
# K8S_POD_NAME is what runtimes call a container by, Podman too.
_ARGUMENTS = frozenset({"IgnoreUnknown", "MAC", "IP", "GATEWAY", "K8S_POD_NAME"})
_YES = frozenset({"1", "true", "t", "yes"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One call. `own_netns`: CNI_NETNS may be the host's own; `environment` is for other plugins.

    `operation` names the call: two with one name are one call that was sent twice.
    """

    command: str
    container: str = ""
    netns: str = ""
    ifname: str = ""
    arguments: Mapping[str, str] = field(default_factory=dict)
    path: tuple[str, ...] = ()
    own_netns: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    operation: str = ""

    @property
    def sandbox(self) -> str:
        """What the state calls the container's sandbox."""
        return SANDBOX_PREFIX + self.container


def parse(environment: Mapping[str, str], operation: str = "") -> Request:
    """The call that the variables describe. Raises Refusal, of all that is missing at once."""
    command = environment.get("CNI_COMMAND", "")
    if not command:
        raise Refusal(INVALID_ENVIRONMENT, "required env variables [CNI_COMMAND] missing")
    if command not in COMMANDS:
        raise Refusal(
            INVALID_ENVIRONMENT,
            f"unknown CNI_COMMAND: {command}",
            f"use one of {', '.join(COMMANDS)}",
        )
    missing = [name for name in _NEEDED.get(command, ()) if not environment.get(name)]
    if missing:
        raise Refusal(INVALID_ENVIRONMENT, f"required env variables [{','.join(missing)}] missing")
    about_one = command in ("ADD", "DEL", "CHECK")
    return Request(
        command=command,
        container=_container(environment["CNI_CONTAINERID"]) if about_one else "",
        netns=environment.get("CNI_NETNS", ""),
        ifname=_ifname(environment["CNI_IFNAME"]) if about_one else "",
        # Nothing is made of them there, and what was refused at first is to go all the same.
        arguments=_arguments(environment.get("CNI_ARGS", "")) if command != "DEL" else {},
        path=tuple(part for part in environment.get("CNI_PATH", "").split(":") if part),
        own_netns=environment.get("CNI_NETNS_OVERRIDE", "").lower() in _YES,
        environment={k: v for k, v in environment.items() if k.startswith("CNI_") or k == "PATH"},
        operation=operation,
    )


def _container(text: str) -> str:
    if not _ID.fullmatch(text):
        raise Refusal(
            INVALID_ENVIRONMENT,
            f"invalid characters in containerID: {text!r}",
            "use letters, digits, '_', '.' and '-', first a letter or digit",
        )
    return text


def _ifname(text: str) -> str:
    try:
        return check_device(text)
    except InvalidName as error:
        raise Refusal(INVALID_ENVIRONMENT, f"CNI_IFNAME: {error.message}", error.hint) from error


def _arguments(text: str) -> dict[str, str]:
    """CNI_ARGS: `K=V;K=V`. An unknown key is an error unless IgnoreUnknown is among them."""
    found: dict[str, str] = {}
    for part in filter(None, (piece.strip() for piece in text.split(";"))):
        key, equals, value = part.partition("=")
        if not equals or not key:
            raise Refusal(INVALID_ENVIRONMENT, f"CNI_ARGS: {part!r} is no KEY=VALUE")
        found[key] = value
    unknown = sorted(found.keys() - _ARGUMENTS)
    if unknown and found.get("IgnoreUnknown", "").lower() not in _YES:
        raise Refusal(
            INVALID_ENVIRONMENT,
            f"CNI_ARGS: unknown args {', '.join(unknown)}",
            f"known are {', '.join(sorted(_ARGUMENTS))}; or add IgnoreUnknown=1",
        )
    return {key: value for key, value in found.items() if key in _ARGUMENTS}
