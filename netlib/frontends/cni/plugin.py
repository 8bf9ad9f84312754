"""One call from beginning to end: whatever happens, a JSON document and an exit status."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from netlib.errors import NetError
from netlib.frontends.cni import attaching, looking, results
from netlib.frontends.cni.call import Call
from netlib.frontends.cni.config import parse as parse_config
from netlib.frontends.cni.config import version_of
from netlib.frontends.cni.refusal import (
    INCOMPATIBLE_VERSION,
    INTERNAL,
    UNDECODABLE,
    Refusal,
)
from netlib.frontends.cni.request import Request
from netlib.frontends.cni.request import parse as parse_request
from netlib.model import Netns
from netlib.net import Net

# The first version of the specification that has a command.
_SINCE: Mapping[str, str] = {"CHECK": "0.4.0", "GC": "1.1.0", "STATUS": "1.1.0"}

Enter = Callable[[Net, Request], Netns]


class Answer(NamedTuple):
    """What the runtime is to get: stdout and the exit status; `log` is for stderr."""

    stdout: str
    status: int
    log: str = ""


def answer(
    net: Callable[[], Net],
    environment: Mapping[str, str],
    stdin: bytes,
    *,
    operation: str = "",
    enter: Enter = attaching.enter,
) -> Answer:
    """Serve one call.

    `net` opens the library when it is needed. `operation` names the call: sent a second time,
    it is looked up. `enter` opens the namespace, for who sees it otherwise than by its path.
    """
    try:
        return Answer(_served(net, environment, stdin, operation, enter), 0)
    except NetError as error:
        return Answer(_told(stdin, error.cni_code, error.message, error.hint), 1)
    except Exception as error:
        import traceback

        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        told = _told(stdin, INTERNAL, what, "a fault of netlib's own: please report it")
        return Answer(told, 1, traceback.format_exc())


def _served(
    net: Callable[[], Net],
    environment: Mapping[str, str],
    stdin: bytes,
    operation: str,
    enter: Enter,
) -> str:
    request = parse_request(environment, operation)
    if request.command == "VERSION":
        return _versions(stdin)
    config = parse_config(stdin, request.arguments, request.command)
    since = _SINCE.get(request.command)
    if since is not None and not results.at_least(config.version, since):
        raise Refusal(
            INCOMPATIBLE_VERSION,
            f"config version {config.version!r} does not have {request.command}",
            f"it is there since {since}",
        )
    result = _done(Call(net(), request, config), enter)
    return "" if result is None else _text(results.write(result, config.version))


def _done(call: Call, enter: Enter) -> results.Result | None:
    match call.request.command:
        case "ADD":
            return attaching.add(call, enter(call.net, call.request))
        case "DEL":
            attaching.delete(call, _entered(call, enter))
        case "CHECK":
            looking.check(call, enter(call.net, call.request))
        case "STATUS":
            looking.status(call)
        case "GC":
            looking.collect(call)
    return None


def _entered(call: Call, enter: Enter) -> Netns | None:
    """The namespace of a DEL, which may be gone, out of reach or never have been named."""
    if not call.request.netns:
        return None
    try:
        return enter(call.net, call.request)
    except NetError:  # what is taken away stands in the state
        return None


def _versions(stdin: bytes) -> str:
    """VERSION needs no configuration; where there is one its version is repeated."""
    asked = results.NEWEST
    if stdin.strip():
        try:
            document = json.loads(stdin)
        except (ValueError, RecursionError) as error:
            raise Refusal(UNDECODABLE, f"stdin is no JSON: {error}") from error
        if isinstance(document, dict) and isinstance(document.get("cniVersion"), str):
            asked = document["cniVersion"]
    return _text({"cniVersion": asked, "supportedVersions": list(results.VERSIONS)})


def _told(stdin: bytes, code: int, message: str, details: str) -> str:
    document: dict[str, Any] = {"cniVersion": version_of(stdin), "code": code, "msg": message}
    if details:
        document["details"] = details
    return _text(document)


def _text(document: Mapping[str, Any]) -> str:
    text = json.dumps(document, ensure_ascii=False) + "\n"
    try:
        text.encode()
    except UnicodeEncodeError:  # half a character of the configuration's, or bytes of a variable
        return json.dumps(document) + "\n"
    return text


def about() -> str:
    """What a person is told who runs the plugin by hand."""
    versions = ", ".join(results.VERSIONS)
    return f"CNI plugin netlib: networks of netlib\nCNI protocol versions supported: {versions}\n"
