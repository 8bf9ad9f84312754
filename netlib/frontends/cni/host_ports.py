"""Host ports of a container with several interfaces: runtimes ask for them with each of these.

The first one publishes; when it goes, the next.
"""

from __future__ import annotations

from contextlib import suppress

from netlib.errors import Conflict
from netlib.net import Net
from netlib.ports import PortRequest, parse
from netlib.values import replace

# Of an endpoint: what it would publish, were it not published by another of its container.
_WAITING = "cni.ports"


def divided(
    net: Net, sandbox: str, asked: tuple[PortRequest, ...]
) -> tuple[tuple[PortRequest, ...], dict[str, str]]:
    """What is to be published, each once, and a label that says what another interface has."""
    if not asked:
        return asked, {}
    there = _published(net, sandbox)
    wanted = tuple(request for request in dict.fromkeys(asked) if str(request) not in there)
    passed = " ".join(dict.fromkeys(str(request) for request in asked if str(request) in there))
    return wanted, {_WAITING: passed} if passed else {}


def pass_on(net: Net, sandbox: str) -> None:
    """Publish what the interfaces that are left asked for, and none of them publishes."""
    left = net.engine.state.endpoints_of(sandbox)
    waiting = {
        spec for one in left for spec in one.endpoint.sandbox.labels.get(_WAITING, "").split()
    }
    lost = sorted(waiting - _published(net, sandbox))
    if lost and net.engine.kernel.alive(left[0].endpoint.sandbox.netns):
        with suppress(Conflict):  # somebody else was quicker: it was free for a moment
            net.publish(sandbox, [replace(parse(spec), held=True) for spec in lost])


def _published(net: Net, sandbox: str) -> set[str]:
    """What a container publishes, as requests are written."""
    found = net.engine.state.endpoints_of(sandbox)
    return {str(port) for one in found for port in one.endpoint.ports}
