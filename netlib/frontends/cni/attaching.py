"""ADD and DEL."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from ipaddress import ip_address, ip_network
from typing import Any

from netlib import keys
from netlib.engine import Engine
from netlib.errors import (
    AddressTaken,
    AlreadyThere,
    Exhausted,
    InterfaceTaken,
    NamespaceGone,
    NetError,
    NoSuchNetwork,
    NotConnected,
    RouteTaken,
)
from netlib.frontends.cni import host_ports, networks
from netlib.frontends.cni.call import Call
from netlib.frontends.cni.declaring import Range
from netlib.frontends.cni.delegate import (
    Ipam,
    addresses_of,
    interfaces_of,
    needs_interface,
    own_routes_of,
    ranges_of,
    routes_of,
)
from netlib.frontends.cni.describing import describe
from netlib.frontends.cni.refusal import (
    INVALID_CONFIG,
    INVALID_NAMESPACE,
    UNKNOWN_CONTAINER,
    Refusal,
)
from netlib.frontends.cni.request import SANDBOX_PREFIX, Request
from netlib.frontends.cni.results import Result
from netlib.ipam import choose
from netlib.model import AddressRange, Endpoint, IPAddress, Netns, Network, Sandbox, Subnet
from netlib.net import Net
from netlib.operation import Operation
from netlib.plan import subject
from netlib.records import EndpointRecord, dump, load, load_endpoint
from netlib.side_by_side import run_with_others
from netlib.store import Commit
from netlib.values import replace
from netlib.verbs.connect import connect
from netlib.verbs.departing import depart, depart_all, leave
from netlib.verbs.giving_way import give_way
from netlib.verbs.pairing import check_nowhere_else
from netlib.verbs.readdress import readdress
from netlib.wiring import Wiring

KIND = "cni"
_OPERATION = "cni.operation"
# The configuration's name: several may attach to one network.
CONFIGURED = "cni.network"
# The runtime's name for the interface, where the configuration has another one.
_ASKED = "cni.ifname"
_NO_DEFAULT_ROUTE = "no_default_route"
_TRIES = 100


def enter(net: Net, request: Request) -> Netns:
    """The network namespace of a request, in this process's own view."""
    try:
        # Others open it again, who are in another folder.
        return net.engine.kernel.enter(os.path.abspath(request.netns), request.sandbox)
    except NamespaceGone as error:
        raise Refusal(
            UNKNOWN_CONTAINER, f"failed to open netns {request.netns!r}: {error}"
        ) from error


def add(call: Call, netns: Netns) -> Result:
    """Join the container to the network. What was done is taken back where it fails."""
    net, request, config = call
    ifname = call.ifname
    _refuse_own(net, request, netns)
    if config.previous is not None and is_taken(config.previous, ifname):
        if config.ports:
            raise Refusal(
                INVALID_CONFIG,
                f"{ifname} is another plugin's: netlib publishes ports of its own interfaces",
                "put netlib first in the list, or the plugin `portmap` after the other one",
            )
        return config.previous
    done = _find_again(call)
    if done is not None:
        if config.delegate:
            _forget(call)
        around = net.engine.state.network(done.endpoint.network)
        return describe(call, around, done, None)
    ports, passed = host_ports.divided(net, request.sandbox, config.ports)
    call = call._replace(config=replace(config, ports=ports))
    box = Sandbox(
        name=request.sandbox,
        netns=netns,
        kind=KIND,
        hostname="",
        labels={
            CONFIGURED: config.name,
            **({_OPERATION: request.operation} if request.operation else {}),
            **({_ASKED: request.ifname} if request.ifname != ifname else {}),
            **passed,
        },
        created=net.engine.clock(),
    )
    if not config.delegate:
        return _attach(call, box, None)
    ipam = Ipam(request, config)
    if needs_interface(config):
        return _attach_first(call, box, ipam)
    _refuse_attached(call, box)
    with _noted(call, ipam), _taken_back(ipam):
        return _attach(call, box, ipam.add())


def _refuse_attached(call: Call, box: Sandbox) -> None:
    """Of an interface that is there the IPAM plugin must not hear: DEL would free its address."""
    engine = call.net.engine
    check_nowhere_else(engine, box, engine.state.endpoints_of(box.name))
    if find_record(call) is not None or call.ifname in engine.kernel.interfaces(box.netns):
        what = f"container {call.request.container} has an interface {call.ifname} already"
        raise _taken(InterfaceTaken(what))


@contextmanager
def _noted(call: Call, ipam: Ipam) -> Iterator[None]:
    """Note the call while the block runs: a daemon that dies in there leaves what it was given.

    Where it comes again that is freed first, or the IPAM plugin would refuse it as taken.
    """
    store, operation = call.net.engine.state.store, call.request.operation
    noted = store.get(_note(call))
    if operation and noted and load(noted.value).get("call") == operation:
        ipam.delete()
    since = call.net.engine.clock()
    note = {_note(call): dump({"since": since, "call": operation})}
    store.commit(Commit(put=note, durable=False))
    try:
        yield
    finally:
        _forget(call)


def _forget(call: Call) -> None:
    gone = (_note(call),)
    call.net.engine.state.store.commit(Commit(put={}, delete=gone, durable=False))


def _note(call: Call) -> str:
    """One for each attachment, so that DEL takes it away whoever died before."""
    return keys.operation_key(f"{call.request.sandbox}.{call.ifname}")


@contextmanager
def _taken_back(ipam: Ipam) -> Iterator[None]:
    """Where the block fails, the IPAM plugin is told DEL, also when it was its ADD that failed."""
    try:
        yield
    except BaseException as error:
        try:
            ipam.delete()
        except NetError as failure:
            error.add_note(f"and its address was not freed: {failure}")
        raise


def _refuse_own(net: Net, request: Request, netns: Netns) -> None:
    if netns.inode == net.engine.home and not request.own_netns:
        raise Refusal(
            INVALID_NAMESPACE, "plugin's netns and netns from CNI_NETNS should not be the same"
        )


def _attach(call: Call, box: Sandbox, delegated: Result | None) -> Result:
    net, _, config = call
    if delegated:
        around = networks.ensure(net, config, ranges_of(delegated), routes_of(delegated))
    else:
        sets = tuple(one for group in config.address_sets for one in group)
        around = networks.ensure(net, config, sets)
    record = _connect(call, box, around.network, delegated)
    try:
        return describe(call, around, record, delegated)
    except BaseException:
        delete_endpoint(call, around.network.id)
        raise


def _attach_first(call: Call, box: Sandbox, ipam: Ipam) -> Result:
    """Likewise, where the addresses are found out by the interface itself."""
    net, _, config = call
    around = networks.ensure(net, config)
    network = around.network
    if network.subnets or config.addresses:
        raise Refusal(
            INVALID_CONFIG,
            f"the plugin {config.delegate} chooses all addresses of {network.name}",
            "leave subnets and addresses out, or ipam",
        )
    bare = _connect(call, box, network, None)
    try:
        with _taken_back(ipam):
            delegated = ipam.add()
            addresses, routes = interfaces_of(delegated), own_routes_of(delegated)
            record = net.engine.run(
                lambda: readdress(net.engine, _now(net.engine, bare), addresses, routes)
            )
            return describe(call, around, record, delegated)
    except BaseException:
        delete_endpoint(call, network.id)
        raise


def _now(engine: Engine, record: EndpointRecord) -> EndpointRecord:
    """The endpoint's record as it is by now."""
    endpoint = record.endpoint
    found = engine.state.store.get(keys.endpoint_key(endpoint.network, endpoint.id))
    if found is None:
        raise NotConnected(f"{endpoint.sandbox.name} was disconnected meanwhile")
    return load_endpoint(found.value, found.revision)


def _connect(
    call: Call, box: Sandbox, network: Network, delegated: Result | None
) -> EndpointRecord:
    config, engine = call.config, call.net.engine
    prepared: list[Operation[Endpoint]] = []
    # What else is asked for is thought through below, perhaps with one address after another.
    give_way(engine, config.ports, lambda: None)
    options: dict[str, str] = {}
    # Nobody waits with others for an answer of the cluster's.
    run = engine.run if network.underlay else partial(run_with_others, engine)
    for attempt in range(_TRIES):
        addresses: tuple[str | IPAddress, ...] = config.addresses
        if delegated is not None:
            addresses = addresses_of(delegated)
        elif not addresses and config.address_sets:
            addresses = tuple(_choose(call.net, network, group) for group in config.address_sets)
        try:
            run(
                partial(
                    _prepared,
                    prepared,
                    engine,
                    network.id,
                    box,
                    publish=config.ports,
                    addresses=addresses,
                    mac=config.mac or None,
                    aliases=config.aliases,
                    ifname=call.ifname,
                    options=options,
                    again=True,
                )
            )
            # The plan of a new endpoint has all its nouns: no need to read them again.
            (operation,) = prepared
            nouns = (subject(step) for stage in operation.plan.stages for step in stage.steps)
            return EndpointRecord(endpoint=operation.result, wiring=Wiring(nouns))
        except AddressTaken:
            # Chosen from a set of ranges: somebody else took it between choice and commit.
            if config.addresses or delegated is not None or attempt == _TRIES - 1:
                raise
        except InterfaceTaken as error:
            raise _taken(error) from error
        except AlreadyThere as error:
            if call.ifname in engine.kernel.interfaces(box.netns):
                raise _taken(error) from error
            able = {option.key for option in engine.driver(network).endpoint_options}
            if options or _NO_DEFAULT_ROUTE not in able:
                raise
            if config.insists:
                raise RouteTaken(
                    f"container {call.request.container} has a default route already, which is "
                    f"not netlib's ({error.message})",
                    "leave isDefaultGateway out to let it be",
                ) from error
            options = {_NO_DEFAULT_ROUTE: "true"}  # another plugin's: the first one counts
    raise AssertionError("not reached")


def _taken(error: NetError) -> InterfaceTaken:
    return InterfaceTaken(error.message, "remove it, or use another CNI_IFNAME")


def _prepared(
    kept: list[Operation[Endpoint]], engine: Engine, network: str, box: Sandbox, **asked: Any
) -> Operation[Endpoint]:
    kept[:] = [connect(engine, network, box, **asked)]
    return kept[0]


def _choose(net: Net, network: Network, group: tuple[Range, ...]) -> IPAddress:
    """The next free address of a set's ranges, in order."""
    full: list[Exhausted] = []
    state = net.engine.state
    for one in group:
        prefix = ip_network(one.subnet)
        known = next((s for s in network.subnets if s.prefix == prefix), Subnet(prefix=prefix))
        first = ip_address(one.first) if one.first else prefix[0]
        last = ip_address(one.last) if one.last else prefix[-1]
        part = Subnet(
            prefix=prefix,
            gateway=known.gateway,
            ranges=(AddressRange(first=first, last=last),),
            reserved=known.reserved,
        )
        try:
            return choose(part, state.leases(network.id), state.cursor(network.id, part))
        except Exhausted as error:
            full.append(error)
    raise Exhausted("; ".join(error.message for error in full), "free some, or give more ranges")


def delete(call: Call, netns: Netns | None) -> None:
    """Take the container off the network: as often as wanted, and whatever is gone already."""
    net, request, config = call
    if netns is not None:
        _refuse_own(net, request, netns)
    network = networks.find(net, config)
    steps: list[Callable[[], None]] = []
    if network is not None:
        steps.append(lambda: delete_endpoint(call, network.id))
    if config.delegate:
        ipam = Ipam(request, config)
        # Whoever gets the address next must not meet it. By an interface it is asked for, and
        # given back, while that is there.
        steps.insert(0 if needs_interface(config) else len(steps), ipam.delete)
        steps.append(lambda: _forget(call))
    failures: list[NetError] = []
    for step in steps:
        try:
            step()
        except NetError as error:
            failures.append(error)
    raise_all(failures)


def delete_endpoint(call: Call, network_id: str) -> None:
    """Remove the endpoint, if there is one, on this network."""
    record = find_record(call)
    if record is not None and record.endpoint.network == network_id:
        detach(call.net, record)
    elif record is None:  # as it is when the first try ended right after that
        host_ports.pass_on(call.net, call.request.sandbox)


def detach(net: Net, record: EndpointRecord) -> None:
    """Remove an endpoint; its ports go to an interface of the container that asked for them too."""
    with suppress(NotConnected, NoSuchNetwork):  # somebody else was first
        depart(net.engine, record)
    _pass_on(net, [record])


def detach_all(net: Net, records: Sequence[EndpointRecord]) -> None:
    """Likewise with many; all of them that can be removed. Raises what failed, in one."""
    try:
        depart_all(net.engine, records)
    finally:
        _pass_on(net, records)


def _pass_on(net: Net, gone: Sequence[EndpointRecord]) -> None:
    for name in dict.fromkeys(one.endpoint.sandbox.name for one in gone if one.endpoint.ports):
        host_ports.pass_on(net, name)


def raise_all(failures: list[NetError]) -> None:
    """Raise what failed, all of it in one."""
    if len(failures) == 1:
        raise failures[0]
    if failures:
        first = failures[0]
        raise Refusal(
            first.cni_code, "; ".join(failure.message for failure in failures), first.hint
        ) from first


def find_record(call: Call) -> EndpointRecord | None:
    """The endpoint that this interface of the container is."""
    store = call.net.engine.state.store
    interface = store.get(keys.interface_key(call.request.sandbox, call.ifname))
    record = store.get(f"endpoint/{interface.value}") if interface else None
    return load_endpoint(record.value, record.revision) if record else None


def attachment(endpoint: Endpoint) -> tuple[str, str]:
    """What a runtime calls an attachment: container and CNI_IFNAME."""
    box = endpoint.sandbox
    container = box.name.removeprefix(SANDBOX_PREFIX)
    return container, box.labels.get(_ASKED, endpoint.ifname)


def _find_again(call: Call) -> EndpointRecord | None:
    """What this very call did already, when it was sent before to a daemon that died.

    What it left half done is taken back.
    """
    net, request, _ = call
    if not request.operation:
        return None
    record = find_record(call)
    if record is None or record.endpoint.sandbox.labels.get(_OPERATION) != request.operation:
        return None
    if _is_whole(call, record):
        return record
    with net.engine.lock.alone():  # nobody is at it any more
        record = find_record(call)
        if record is not None and _is_whole(call, record):
            return record
        if record is not None:
            half = record
            net.engine.run_locked(lambda: leave(net.engine, half))
    return None


def _is_whole(call: Call, record: EndpointRecord) -> bool:
    """Whether all was done of it: the addresses may come after the interface."""
    endpoint = record.endpoint
    later = needs_interface(call.config) and not endpoint.addresses
    return endpoint.state == "ready" and not later


def is_taken(previous: Result, ifname: str) -> bool:
    """Whether a result has this interface of the container."""
    return any(one["name"] == ifname and one.get("sandbox") for one in previous["interfaces"])
