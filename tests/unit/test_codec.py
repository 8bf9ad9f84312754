"""Values survive the way into JSON and back."""

from __future__ import annotations

import json
from ipaddress import ip_address, ip_interface, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.wirings import endpoint, wirings

from netlib.codec import from_json, to_json
from netlib.model import (
    AddressRange,
    Endpoint,
    HostFacts,
    Netns,
    Network,
    Peer,
    PublishedPort,
    Sandbox,
    Subnet,
)
from netlib.wiring import FdbEntry, Publish, Vxlan, Wiring

WEB = Netns(name="web", path="/run/netns/web", inode=4026532000)
V4 = st.integers(0, 2**32 - 1).map(ip_address)
V6 = st.integers(2**32, 2**128 - 1).map(ip_address)


def there_and_back(value: object) -> object:
    """A value after its way through a JSON text."""
    return from_json(type(value), json.loads(json.dumps(to_json(value))))


@given(wirings((WEB,)))
def test_any_wiring_survives(wiring: Wiring) -> None:
    """The recorded wiring is the one that was made: teardown depends on it."""
    assert there_and_back(wiring) == wiring
    assert list(there_and_back(wiring)) == list(wiring)  # type: ignore[call-overload]


@given(host=st.none() | V4 | V6, target=V4 | V6, count=st.integers(1, 9))
def test_nouns_with_optional_parts_survive(host: object, target: object, count: int) -> None:
    """None, either family, tuples of prefixes."""
    publish = Publish(
        family=4, protocol="udp", host=host, port=53, count=count, target=target,  # type: ignore[arg-type]
        target_port=5353, sources=(ip_network("192.0.2.0/24"), ip_network("2001:db8::/32")),
    )  # fmt: skip
    entry = FdbEntry(device="x", mac="00:00:00:00:00:00", remote=target)  # type: ignore[arg-type]
    tunnel = Vxlan(
        name="nx-1", owner="netlib:1", mtu=1450, bridge="nl-1", vni=1, local=target,  # type: ignore[arg-type]
        mac="02:00:00:00:00:01", flood=True,
    )  # fmt: skip
    wiring = Wiring([publish, entry, tunnel])
    assert there_and_back(wiring) == wiring


@pytest.mark.parametrize(
    "value",
    [
        Network(
            id="a" * 64,
            name="my-net",
            driver="bridge",
            subnets=(
                Subnet(
                    prefix=ip_network("192.0.2.0/24"),
                    gateway=ip_address("192.0.2.1"),
                    ranges=(
                        AddressRange(first=ip_address("192.0.2.9"), last=ip_address("192.0.2.99")),
                    ),
                    reserved={"router": ip_address("192.0.2.254")},
                ),
                Subnet(prefix=ip_network("2001:db8::/64")),
            ),
            options={"mtu": "1400"},
            labels={"a": "b"},
            internal=True,
            borrowed=("eth0",),
            created=1.5,
            state="ready",
        ),
        Endpoint(
            id="b" * 64,
            network="a" * 64,
            sandbox=Sandbox(name="web", netns=WEB, kind="docker", pid=7, labels={"x": "y"}),
            ifname="eth0",
            mac="02:00:00:00:00:01",
            addresses=(ip_interface("192.0.2.2/24"), ip_interface("2001:db8::2/64")),
            ports=(
                PublishedPort(
                    host_address=ip_address("192.0.2.1"),
                    host_port=8080,
                    port=80,
                    sources=(ip_network("0.0.0.0/0"),),
                ),
            ),
            gateway_for=(4, 6),
            links={"db": "alias"},
        ),
        Peer(mac="02:00:00:00:00:01", addresses=(ip_address("192.0.2.9"),), host=ip_address("::1")),
        HostFacts(boot_id="x", forwarding=(4,)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_of_the_model_survive(value: object) -> None:
    """Mappings, tuples, nested values, literals."""
    assert there_and_back(value) == value


def test_documents_of_other_versions_can_be_read() -> None:
    """A key that is absent takes its default, one that is unknown is left out."""
    document = to_json(endpoint(WEB))
    for noun in document:
        noun["from-the-future"] = 1
        noun.pop("announce", None)
        noun.pop("isolated", None)
        noun.pop("up", None)

    assert from_json(Wiring, document) == endpoint(WEB)


@pytest.mark.parametrize("document", [[{"noun": "Nonsense"}], [{}], [{"noun": "Bridge"}]])
def test_nonsense_is_refused(document: object) -> None:
    """What is no wiring does not become one."""
    with pytest.raises((KeyError, TypeError, ValueError)):
        from_json(Wiring, document)
