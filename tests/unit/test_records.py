"""Records: what was written is what is read, whether it is still known or decoded anew."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface

from netlib.model import Endpoint, Netns, PublishedPort, Sandbox
from netlib.records import Memo, dump_endpoint, load_endpoint
from netlib.wiring import Address, Publish, Wiring

BOX = Sandbox(name="web", netns=Netns(name="web", path="/run/netns/web", inode=7))
ENDPOINT = Endpoint(
    id="a" * 64,
    network="b" * 64,
    sandbox=BOX,
    ifname="eth0",
    mac="02:00:00:00:00:01",
    addresses=(ip_interface("192.0.2.2/24"), ip_interface("2001:db8::2/64")),
    ports=(PublishedPort(host_port=8080, port=80),),
    gateway_for=(4, 6),
)
WIRING = Wiring(
    [
        Address(netns=BOX.netns, device="eth0", address=ip_interface("192.0.2.2/24")),
        Publish(
            family=4, protocol="tcp", port=8080, target=ip_address("192.0.2.2"), target_port=80
        ),
    ]
)


def test_a_record_that_was_just_written_is_known() -> None:
    """It is not decoded again, and has the revision that it is read at."""
    text = dump_endpoint(ENDPOINT, WIRING)

    record = load_endpoint(text, 3)

    assert record.endpoint is ENDPOINT
    assert record.wiring is WIRING
    assert record.revision == 3


def test_a_record_of_another_process_is_decoded_to_the_same() -> None:
    """Equal in all that it says."""
    text = dump_endpoint(ENDPOINT, WIRING)

    record = load_endpoint(f" {text}", 3)

    assert record.endpoint is not ENDPOINT
    assert (record.endpoint, record.wiring) == (ENDPOINT, WIRING)


def test_what_is_known_stays_bounded() -> None:
    """The oldest is forgotten, and decoded when it is read again."""
    decoded: list[str] = []
    memo = Memo(lambda text: decoded.append(text) or text.upper(), 2)

    assert [memo.of(text) for text in ("a", "b", "a", "c", "a")] == ["A", "B", "A", "C", "A"]
    assert decoded == ["a", "b", "c", "a"]


def test_a_value_that_was_read_is_written_as_its_text_until_it_is_forgotten() -> None:
    """By what it is, not by what equals it; nothing is told of a value that is gone."""
    memo = Memo(lambda text: [text], 2)
    first = memo.of("a")
    assert memo.text_of(first) == "a"
    assert memo.text_of(["a"]) is None
    memo.keep("a", ["a", "b"])
    assert memo.text_of(first) is None
    second = memo.of("b")
    memo.of("c")
    memo.of("d")
    assert memo.text_of(second) is None
