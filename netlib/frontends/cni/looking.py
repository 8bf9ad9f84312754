"""CHECK, STATUS and GC."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_interface

from netlib.errors import NetError
from netlib.frontends.cni import attaching, networks
from netlib.frontends.cni.attaching import CONFIGURED, KIND, find_record, raise_all
from netlib.frontends.cni.call import Call
from netlib.frontends.cni.config import VALID_ATTACHMENTS
from netlib.frontends.cni.delegate import Ipam
from netlib.frontends.cni.refusal import (
    INVALID_CONFIG,
    LIMITED_CONNECTIVITY,
    NOT_AVAILABLE,
    UNKNOWN_CONTAINER,
    Refusal,
)
from netlib.frontends.cni.results import Result
from netlib.model import Endpoint, Netns, Network
from netlib.net import Net
from netlib.plan import Change, Plan, Stage, Step
from netlib.records import EndpointRecord
from netlib.settings import STATE_FILE
from netlib.store.sqlite_file import check_room
from netlib.values import fields
from netlib.verbs.check import Finding, examine, past_running
from netlib.wiring import Macvlan, VethPair

# How the names of our own devices begin, see netlib.names.
_OURS = ("nl-", "nv-")
# What a later plugin of the list may have changed (tuning).
_OTHERS_MAY_CHANGE = ("mtu", "mac", "hairpin")


def check(call: Call, netns: Netns) -> None:
    """Raise Refusal that names what is missing of an attachment."""
    net, request, config = call
    previous = config.previous
    if previous is None:
        raise Refusal(INVALID_CONFIG, "CHECK needs prevResult")
    if config.delegate:
        Ipam(request, config).forward("CHECK")
    missing = past_running(net.engine, lambda: _missing(call, previous, netns))
    if missing:
        raise Refusal(
            NetError.cni_code,
            f"{call.ifname} of container {request.container} is damaged: {'; '.join(missing)}",
            "run: net repair",
        )


def _missing(call: Call, previous: Result, netns: Netns) -> list[str]:
    """What is missing of an attachment, in words. Raises Refusal where it is none."""
    net, request, config = call
    record = find_record(call)
    network = networks.find(net, config)
    if record is None or network is None or record.endpoint.network != network.id:
        if _was_others(previous, call.ifname, network):
            return []
        raise Refusal(
            UNKNOWN_CONTAINER,
            f"{call.ifname} of container {request.container} is not attached to {config.network}",
        )
    if record.endpoint.sandbox.netns.inode != netns.inode:
        raise Refusal(
            UNKNOWN_CONTAINER, f"{request.netns} is not the network namespace that was attached"
        )
    told = _compare(previous, record.endpoint)
    return [part for found in _damage(net, record) for part in _parts(net, found, told)]


def _was_others(previous: Result, ifname: str, network: Network | None) -> bool:
    """Whether the interface was another plugin's, so that ADD passed it through."""
    if any(one["name"].startswith(_OURS) for one in previous["interfaces"]):
        return False
    subnets = [subnet.prefix for subnet in network.subnets] if network else []
    addresses = [ip_interface(ip["address"]).ip for ip in previous["ips"]]
    return attaching.is_taken(previous, ifname) and not any(
        address in prefix for address in addresses for prefix in subnets
    )


def _compare(previous: Result, endpoint: Endpoint) -> str:
    """All that the endpoint has must be in what the runtime was told; the MAC address there."""
    told = {ip_interface(ip["address"]) for ip in previous["ips"]}
    for address in endpoint.addresses:
        if address not in told:
            raise Refusal(INVALID_CONFIG, f"prevResult does not have the address {address}")
    own = [i for i in previous["interfaces"] if i["name"] == endpoint.ifname and i.get("sandbox")]
    if not own:
        raise Refusal(INVALID_CONFIG, f"prevResult does not have the interface {endpoint.ifname}")
    return str(own[0].get("mac") or "").lower()


def _damage(net: Net, record: EndpointRecord) -> tuple[Finding, ...]:
    """What is wrong with an endpoint and its network."""
    around = net.engine.state.find_network(record.endpoint.network)
    return examine(net.engine, [around] if around else [], [record])


def _parts(net: Net, finding: Finding, told_mac: str) -> list[str]:
    """What is wrong, as the commands that would mend it; or why nothing can."""
    if finding.note:
        return [finding.note]
    kept = tuple(
        Stage(stage.layer, stage.netns, steps)
        for stage in finding.plan.stages
        if (steps := tuple(s for s in stage.steps if not _is_tolerable(s, told_mac)))
    )
    script = Plan(stages=kept).text(net.engine.kernel.firewall)
    return [" ".join(line.split()) for line in script.splitlines()]


def _is_tolerable(step: Step, told_mac: str) -> bool:
    """Whether a later plugin of the list did it; of a MAC address the result tells that."""
    if not isinstance(step, Change) or not isinstance(step.old, VethPair | Macvlan):
        return False
    new = step.new
    if not isinstance(new, VethPair | Macvlan) or step.old.mac not in (new.mac, told_mac):
        return False
    differing = {f.name for f in fields(new) if getattr(step.old, f.name) != getattr(new, f.name)}
    return differing.issubset(_OTHERS_MAY_CHANGE)


def status(call: Call) -> None:
    """Raise Refusal with code 50 or 51 where an ADD would fail, or networks are damaged."""
    net, request, config = call
    try:
        net.engine.facts()
        check_room(str(net.state_dir / STATE_FILE))
        network = networks.find(net, config)
    except NetError as error:
        raise Refusal(NOT_AVAILABLE, error.message, error.hint) from error
    if config.delegate:
        Ipam(request, config).forward("STATUS")
    if network is None:
        try:
            networks.plan(net, config)
        except NetError as error:
            raise Refusal(NOT_AVAILABLE, error.message, error.hint) from error
        return
    if network.state != "ready":
        raise Refusal(NOT_AVAILABLE, f"network {network.name} is {network.state}")
    details = net.inspect(network.id)
    for family in network.families():
        uses = [u for s, u in zip(network.subnets, details.use, strict=True) if s.family == family]
        if not config.delegate and uses and not any(use.free for use in uses):
            raise Refusal(
                NOT_AVAILABLE,
                f"network {network.name} has no free IPv{family} address",
                f"run: net gc, or net update --subnet CIDR {network.name}",
            )
    if past_running(net.engine, lambda: _damaged(net, network)):
        raise Refusal(LIMITED_CONNECTIVITY, f"network {network.name} is damaged", "run: net repair")


def _damaged(net: Net, network: Network) -> list[Finding]:
    record = net.engine.state.find_network(network.id)
    found = examine(net.engine, [record], []) if record else ()
    return [finding for finding in found if finding.plan]


def collect(call: Call) -> None:
    """Free what belongs to no valid attachment on this network; go on after an error."""
    net, request, config = call
    valid = config.attachments
    if valid is None:
        raise Refusal(INVALID_CONFIG, f"GC needs {VALID_ATTACHMENTS}")
    failures: list[NetError] = []

    def attempt(work: Callable[[], object]) -> None:
        try:
            work()
        except NetError as error:
            failures.append(error)

    if config.delegate:
        attempt(lambda: Ipam(request, config).forward("GC"))
    network = networks.find(net, config)
    stale = [
        record
        for record in (net.engine.state.endpoints(network.id) if network else ())
        if _is_of(record.endpoint, config.name)
        and attaching.attachment(record.endpoint) not in valid
    ]
    attempt(lambda: attaching.detach_all(net, stale))
    raise_all(failures)


def _is_of(endpoint: Endpoint, configuration: str) -> bool:
    box = endpoint.sandbox
    return box.kind == KIND and box.labels.get(CONFIGURED) == configuration
