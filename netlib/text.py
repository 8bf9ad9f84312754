"""A plan as the commands that an administrator would type for it."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from shlex import quote
from typing import Any

from netlib import link_text
from netlib.binding import ANY
from netlib.model import HOST, IPNetwork, Netns, bracketed, port_range
from netlib.plan import Change, Create, Delete, Plan, Stage, Step, in_order, subject
from netlib.values import replace
from netlib.wiring import (
    Address,
    Announce,
    Effect,
    FdbEntry,
    FirewallBase,
    ForgetFlows,
    Forwarding,
    Layer,
    Link,
    Loopback,
    NameServer,
    Neighbour,
    Noun,
    Relay,
    Route,
    SourceGuard,
    Sysctl,
    Up,
)

# The network namespace it runs in, and a command.
Line = tuple[Netns, str]

_ZERO_MAC = "00:00:00:00:00:00"
# Of a noun, what may be anything that Linux takes for a device's name: x;y too.
_DEVICES = ("name", "peer", "bridge", "parent", "device")


def script(plan: Plan, firewall: str) -> str:
    """The plan's commands, each behind the name of the network namespace that it runs in."""
    lines: list[Line] = []
    up: set[tuple[str, str]] = set()  # devices that an earlier line set up
    for stage in plan.stages:
        lines += _of_stage(_typable(stage), firewall, up)
    for effect in plan.after:
        lines += _of_effect(effect)
    width = max((len(netns.name) for netns, _ in lines), default=0)
    return "".join(f"{netns.name:{width}}  {command}\n" for netns, command in lines)


def _typable(stage: Stage) -> Stage:
    """The stage with names of devices as a shell has to be told them."""
    return replace(
        stage,
        steps=tuple(
            replace(step, old=_quoted(step.old), new=_quoted(step.new))
            if isinstance(step, Change)
            else replace(step, noun=_quoted(step.noun))
            for step in stage.steps
        ),
    )


def _quoted(noun: Noun) -> Noun:
    named = {key: getattr(noun, key, None) for key in _DEVICES}
    words: dict[str, Any] = {
        key: quote(name) for key, name in named.items() if name and quote(name) != name
    }
    return replace(noun, **words) if words else noun


def _of_stage(stage: Stage, firewall: str, up: set[tuple[str, str]]) -> Iterator[Line]:
    if stage.layer is Layer.ADDRESS:
        yield from _of_riders(stage, up)
        return
    for step in stage.steps:
        noun = subject(step)
        if isinstance(noun, FirewallBase) or noun.layer is Layer.FIREWALL:
            yield from ((HOST, command) for command in _of_firewall(step, firewall))
        elif isinstance(noun, Link):
            yield from link_text.lines(step)
            up |= link_text.devices_up(step)
        elif isinstance(noun, Sysctl):
            yield noun.netns, _sysctl(noun, noun.default if isinstance(step, Delete) else None)
        else:
            yield noun.netns, _of_other(step, noun)


def _of_firewall(step: Step, firewall: str) -> list[str]:
    if firewall == "none":
        return []
    if isinstance(subject(step), SourceGuard):
        firewall = "source_guard"  # whatever the backend is
    commands: list[str] = importlib.import_module(f"netlib.firewall.{firewall}").commands(step)
    return commands


def _of_other(step: Step, noun: Noun) -> str:
    match noun:
        case Forwarding(family=4):
            return "sysctl -w net.ipv4.ip_forward=1"
        case Forwarding():
            return "sysctl -w net.ipv6.conf.all.forwarding=1"
        case Loopback():
            return "ip link set lo up"
        case Relay():
            return _relay(step, noun)
        case NameServer():
            return _name_server(step, noun)
    raise TypeError(f"no command is known for {noun}")


def _relay(step: Step, noun: Relay) -> str:
    ports = port_range(noun.port, noun.count)
    listening = f"{bracketed(noun.host)}:{ports}"
    target = f"{bracketed(noun.target)}:{port_range(noun.target_port, noun.count)}"
    held = f", holding {bracketed(ANY[noun.host.version])}:{ports}" if noun.holds_all else ""
    relay = f"{noun.protocol} relay from {listening} to {target}"
    return f"# end the {relay}" if isinstance(step, Delete) else f"# start a {relay}{held}"


def _name_server(step: Step, noun: NameServer) -> str:
    where = ", ".join(f"{bracketed(address)}:{noun.port}" for address in noun.addresses)
    whose = f"the name server of {noun.kind} {noun.subject}"
    if isinstance(step, Change):
        return f"# move {whose} to {where}"
    return f"# {'end' if isinstance(step, Delete) else 'start'} {whose} on {where}"


def _sysctl(noun: Sysctl, value: str | None) -> str:
    # With slashes where a device's name has dots (sysctl(8)).
    path = noun.path if "." in noun.path else noun.path.replace("/", ".")
    return f"sysctl -w {quote(f'{path}={noun.value if value is None else value}')}"


def _of_riders(stage: Stage, up: set[tuple[str, str]]) -> Iterator[Line]:
    steps = in_order(stage.steps)
    for number, step in enumerate(steps):
        noun = subject(step)
        yield from ((noun.netns, command) for command in _of_rider(step))
        if isinstance(noun, Up) and isinstance(step, Create):
            up.add((noun.netns.name, noun.device))
        # Once for each device, after the last of its addresses.
        following = subject(steps[number + 1]) if number + 1 < len(steps) else None
        if isinstance(noun, Address) and not isinstance(following, Address):
            devices = [
                s.noun.device
                for s in steps
                if isinstance(s, Create) and isinstance(s.noun, Address)
            ]
            for device in dict.fromkeys(devices):
                if (noun.netns.name, device) not in up:
                    up.add((noun.netns.name, device))
                    yield noun.netns, f"ip link set {device} up"


def _of_rider(step: Step) -> list[str]:
    noun = subject(step)
    deleting, changing = isinstance(step, Delete), isinstance(step, Change)
    verb = "del" if deleting else "replace" if changing else "add"
    match noun:
        case Up():
            return [f"ip link set {noun.device} {'down' if deleting else 'up'}"]
        case Address():
            nodad = " nodad" if noun.address.version == 6 and not deleting else ""
            return [] if changing else [f"ip addr {verb} {noun.address} dev {noun.device}{nodad}"]
        case Route():
            return [f"{_ip(noun.destination)} route {verb} {_route(noun)}"]
        case Neighbour():
            mac = "" if deleting else f" lladdr {noun.mac} nud permanent"
            return [f"ip neigh {verb} {noun.address}{mac} dev {noun.device}"]
        case FdbEntry():
            return _fdb(noun, verb)
    raise TypeError(f"no command is known for {noun}")


def _ip(prefix: IPNetwork) -> str:
    return "ip -6" if prefix.version == 6 else "ip"


def _route(noun: Route) -> str:
    words = [str(noun.destination) if noun.destination.prefixlen else "default"]
    if noun.via is not None:
        words.append(f"via {noun.via}")
    words.append(f"dev {noun.device}")
    if noun.metric:
        words.append(f"metric {noun.metric}")
    if noun.on_link:
        words.append("onlink")
    if noun.src is not None:
        words.append(f"src {noun.src}")
    return " ".join(words)


def _fdb(noun: FdbEntry, verb: str) -> list[str]:
    entry = f"{noun.mac} dev {noun.device}"
    tunnel = f"{entry} dst {noun.remote} self"
    if noun.mac == _ZERO_MAC:  # frames to nobody known go to every remote
        return [f"bridge fdb {'del' if verb == 'del' else 'append'} {tunnel} permanent"]
    if verb == "del":
        return [f"bridge fdb del {entry} master", f"bridge fdb del {tunnel}"]
    return [
        f"bridge fdb {verb} {tunnel} permanent",
        f"bridge fdb replace {entry} master static sticky",
    ]


def _of_effect(effect: Effect) -> Iterator[Line]:
    if isinstance(effect, Announce):
        ip = effect.address.ip
        if ip.version == 4:
            yield effect.netns, f"arping -U -c 1 -I {quote(effect.device)} {ip}"
        else:
            yield effect.netns, f"ndsend {ip} {quote(effect.device)}"
    elif isinstance(effect, ForgetFlows):
        yield HOST, _forget(effect)


def _forget(effect: ForgetFlows) -> str:
    family = " -f ipv6" if effect.family == 6 else ""
    host = f" --orig-dst {effect.host}" if effect.host is not None else ""
    command = f"conntrack -D{family} -p {effect.protocol}{host} --orig-port-dst"
    if effect.count == 1:
        return f"{command} {effect.port}"
    last = effect.port + effect.count - 1
    return f"for port in $(seq {effect.port} {last}); do {command} $port; done"
