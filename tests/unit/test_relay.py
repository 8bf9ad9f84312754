"""The parts of relays that need no socket: clients, places, prefixes, what is loaded."""

from __future__ import annotations

import subprocess
import sys
from ipaddress import ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.relay import relay

import netlib
from netlib.codec import from_json, to_json
from netlib.relay.limits import Quota, client_of
from netlib.relay.spec import Spec
from netlib.wiring import Relay


@given(st.ip_addresses(), st.ip_addresses(v=4), st.integers(0, 32))
def test_sources_admit_what_they_contain(other: object, inside: object, length: int) -> None:
    """The same answer as the standard library's prefixes give."""
    prefix = ip_network(f"{inside}/{length}", strict=False)
    spec = Spec(to_json(relay("192.0.2.1", 80, "2001:db8::1", sources=(str(prefix),))))

    assert spec.admits(str(inside))
    if other.version == 4:
        assert spec.admits(str(other)) == (other in prefix)


def test_ports_of_a_range_lead_to_the_same_place_of_the_other_range() -> None:
    """The n-th port of the host to the n-th of the target."""
    spec = Spec(to_json(relay("::1", 8000, "192.0.2.2", 80, count=3)))

    assert [slot[2] for slot in spec.slots] == [8000, 8001, 8002]
    assert spec.listening(8002)[:2] == ("::1", 8002)
    assert spec.target(8002) == ("192.0.2.2", 82)


def test_a_relay_of_an_older_version_holds_no_other_address() -> None:
    """Who asks for it may know no such thing."""
    document = to_json(relay("::1", 8080, "2001:db8::1", holds_all=True))
    assert Spec(document).holds_all
    del document["holds_all"]

    assert not Spec(document).holds_all
    assert from_json(Relay, document) == relay("::1", 8080, "2001:db8::1")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:0:0:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth1", True),
    ],
)
def test_an_ipv6_client_is_a_64(one: str, other: str, same: bool) -> None:
    """A host has a whole /64 to choose addresses from, but one IPv4 address."""
    assert (client_of(one) == client_of(other)) == same


def test_one_client_leaves_places_for_others() -> None:
    """A quarter is the most for one; all of them together get all places."""
    quota = Quota(open_files=400)

    assert [quota.take("a") for _ in range(30)].count(True) == 25
    assert all(quota.take(other) for other in "bcd" for _ in range(25))
    assert quota.full
    assert not quota.take("e")

    quota.give_back("a")
    assert quota.take("e")


def test_the_process_loads_little() -> None:
    """It starts while somebody waits: nothing but a few modules of the standard library."""
    program = (
        f"import sys; sys.path.insert(0, {str(Path(netlib.__file__).parent.parent)!r})\n"
        "before = set(sys.modules)\n"
        "import netlib.relay.process\n"
        "print(*sorted({name.partition('.')[0] for name in set(sys.modules) - before}))"
    )
    loaded = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=True
    ).stdout.split()

    assert not {"asyncio", "pyroute2", "dataclasses", "ipaddress", "pathlib", "subprocess"} & {
        *loaded
    }
