"""From a request to a running command, and back to nothing."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import IO

from netlib.errors import InvalidRequest, NetError, NoSuchSandbox
from netlib.model import Netns, Sandbox
from netlib.net import Net
from netlib.plan import Plan, joined
from netlib.run import signals
from netlib.run.child import HOST_NETWORK, OWN_NETWORK, Child, start_time
from netlib.run.request import HOST_GATEWAY, Attachment, RunRequest
from netlib.run.showing import keep_shown

Told = Callable[[str], None]
# Those of a sandbox's folder, shown below /etc.
FILES = ("resolv.conf", "hosts", "hostname")


def run(
    net: Net,
    request: RunRequest,
    *,
    output: IO[bytes] | None = None,
    started: Told | None = None,
    warn: Told | None = None,
) -> int:
    """Run a command as a sandbox until it ends; its exit status, 128 + n after signal n.

    To be called by a process's main thread: signals that come are passed on to the command.
    Nothing is left afterwards, also when connecting fails half way. `started` is told the
    name once the command runs; `output` takes its output.
    """
    is_host = _is_host(net, request)  # before anything is started
    with signals.held(), ExitStack() as shared:
        network = HOST_NETWORK if is_host else OWN_NETWORK
        if request.shares:
            network = _open(net.engine.state.sandbox(request.shares))
            shared.callback(os.close, network)
        # Before the kernel is opened, which starts threads.
        child = Child(output=output, network=network)
        try:
            status = _run(net, request, child, started, warn)
        except BaseException:
            child.abandon()
            try:
                _clean_up(net, request.name, child.pid)
            except NetError as leftover:
                if warn is not None:  # the error that is under way matters more
                    warn(str(leftover))
            raise
        child.abandon()
        _clean_up(net, request.name, child.pid)
        return status


def plan(net: Net, request: RunRequest) -> Plan:
    """What connecting the sandbox would do."""
    # The host's own namespace, under a false name, stands in for the one still to be made.
    stand_in = Netns(name=request.name)
    box = Sandbox(name=request.name, netns=stand_in, hostname=request.own_hostname)
    plans = net.plan.in_sequence()
    parts: list[Plan] = []
    for number, attachment in enumerate(request.attachments):
        network = net.engine.state.network(attachment.network).network
        if not net.engine.driver(network).capabilities.interface:
            continue  # nothing is done but for the process itself
        prefix = network.options.get("iface_prefix", "eth")
        parts.append(
            plans.connect(
                attachment.network,
                box,
                publish=request.ports if number == 0 else (),
                addresses=attachment.addresses,
                mac=attachment.mac,
                aliases=attachment.aliases,
                links=attachment.links,
                ifname=attachment.ifname or f"{prefix}{number}",
                gateway_priority=attachment.gateway_priority,
                options=attachment.options,
            )
        )
    return joined(parts)


def _run(
    net: Net, request: RunRequest, child: Child, started: Told | None, warn: Told | None
) -> int:
    netns = net.engine.kernel.enter(child.netns_path, request.name)
    _bury(net, request.name)
    box = net.register_sandbox(
        request.name,
        netns,
        pid=child.pid,
        started=start_time(child.pid),
        hostname=request.own_hostname,
        servers=map(str, request.nameservers),
        search=request.search,
        resolver_options=request.resolver_options,
        extra_hosts=[f"{e.name}:{e.address or HOST_GATEWAY}" for e in request.hosts],
        labels=request.labels,
        environment=request.environment,
    )
    _connect(net, request)
    if asked := signals.asked_to_end():
        return 128 + asked
    owner = net.engine.state.owner(box)
    folder = net.files_of(owner.name)
    files = {f"/etc/{name}": str(folder / name) for name in FILES}
    hostname = owner.hostname
    if _is_host(net, request):  # its own names and files are right already
        files, hostname = {}, request.hostname or socket.gethostname()
    # Any folder: the child covers it, in its own mount namespace and for a moment.
    net.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    missing = child.become(
        request.command,
        files,
        hostname,
        net.state_dir,
        {**net.link_environment(request.name), **request.environment},
    )
    if missing and warn is not None:
        warn(f"the host has no {' and no '.join(missing)}, so the sandbox has none either")
    keep_shown(child.pid, {path: files[path] for path in files if path not in missing}, warn)
    if started is not None:
        started(request.name)
    return signals.wait_for(child.process)


def _is_host(net: Net, request: RunRequest) -> bool:
    """Whether the command is to be on the host's own network. Raises InvalidRequest, NotFound."""
    found = [net.engine.state.network(a.network).network for a in request.attachments]
    hosts = [n.name for n in found if not net.engine.driver(n).capabilities.own_netns]
    if hosts and len(found) > 1:
        raise InvalidRequest(
            f"who is on {hosts[0]} can't be on other networks", "name no other --network"
        )
    return bool(hosts)


def _open(box: Sandbox) -> int:
    """A descriptor of a sandbox's network namespace. NoSuchSandbox when it has ended."""
    try:
        descriptor = os.open(box.netns.path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise NoSuchSandbox(f"sandbox {box.name} has ended", "run: net gc") from error
    if box.netns.inode not in (0, os.fstat(descriptor).st_ino):
        os.close(descriptor)
        raise NoSuchSandbox(f"sandbox {box.name} has ended", "run: net gc")
    return descriptor


def _bury(net: Net, name: str) -> None:
    """Give up a sandbox of this name whose process was killed with its keeper.

    Sandboxes here are processes: who starts one again need not know how the last one ended.
    """
    last = net.engine.state.find_sandbox(name)
    if last is not None and last.pid and not net.engine.kernel.alive(last.netns):
        _clean_up(net, name, last.pid)


def _connect(net: Net, request: RunRequest) -> None:
    """Join all networks in order, so that their interfaces are eth0, eth1 and so on."""
    # A single network's ports are part of its one operation.
    with_ports = len(request.attachments) == 1
    for attachment in request.attachments:
        _join(net, attachment, request, with_ports=with_ports)
    if request.ports and not with_ports:
        net.publish(request.name, request.ports)


def _join(net: Net, attachment: Attachment, request: RunRequest, *, with_ports: bool) -> None:
    """Join one network."""
    net.connect(
        attachment.network,
        request.name,
        publish=request.ports if with_ports else (),
        addresses=attachment.addresses,
        mac=attachment.mac,
        aliases=attachment.aliases,
        links=attachment.links,
        ifname=attachment.ifname,
        gateway_priority=attachment.gateway_priority,
        options=attachment.options,
    )


def _clean_up(net: Net, name: str, pid: int) -> None:
    """Take the sandbox off its networks and forget it."""
    box = net.engine.state.find_sandbox(name)
    if box is None or box.pid != pid:
        return  # never registered; or `net gc` was first, and by now the name is another's
    with suppress(NoSuchSandbox):
        net.remove_sandbox(name)
