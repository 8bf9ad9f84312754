"""Whatever bytes come in, the resolver answers rightly or not at all, and goes on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.names import BACK, endpoint, query, rcode, values

from netlib.dns import wire
from netlib.dns.forward import Done, Question, _Exchange, _Inquiry
from netlib.dns.loop import Loop
from netlib.dns.quick import quick_road
from netlib.dns.resolver import Resolver
from netlib.dns.within import Within
from netlib.dns.zone import Zone

CORPUS = Path(__file__).parent.parent / "fuzz" / "dns_corpus.txt"


def _resolver() -> Resolver:
    """For an internal network: it never asks others, so every answer is there at once."""
    resolver = Resolver(Loop())
    net = replace(BACK, subnets=("192.0.2.0/24",), records=("web TXT x",))
    many = [f"192.0.2.{n}" for n in range(10, 60)]
    resolver.zone = Zone.build(
        [net], [endpoint("web", "192.0.2.2", network=net), endpoint("many", *many, network=net)]
    )
    return resolver


RESOLVER = _resolver()
ASKER = RESOLVER.zone.asker_at("network", "n2", bytes([192, 0, 2, 2]))


def respond(message: bytes, *, tcp: bool = False) -> bytes | None:
    """The answer to a message, which must come at once."""

    def later(_: bytes) -> None:
        raise AssertionError("an internal network has nobody to wait for")

    return RESOLVER.respond(message, ASKER, later, tcp=tcp)


def corpus() -> list[tuple[str, bytes]]:
    """Expected code and message of each line."""
    found = []
    for line in CORPUS.read_text().splitlines():
        words = line.partition("#")[0].split()
        if words:
            found.append((words[0], bytes.fromhex("".join(words[1:]).strip("."))))
    return found


@pytest.mark.parametrize(("expected", "message"), corpus())
def test_known_traps_get_the_right_code(expected: str, message: bytes) -> None:
    """Each message of the corpus, over UDP and TCP."""
    for tcp in (False, True):
        answer = respond(message, tcp=tcp)
        assert ("-" if answer is None else rcode(answer)) == expected
        if answer is not None:
            assert answer[:2] == message[:2]


def check(message: bytes) -> None:
    """What holds for the answer to any message."""
    for tcp in (False, True):
        answer = respond(message, tcp=tcp)
        if answer is None:
            assert len(message) < 12 or message[2] & 0x80
            continue
        assert answer[:2] == message[:2]
        assert answer[2] & 0x80
        assert len(answer) <= (65535 if tcp else wire.UDP_PAYLOAD_BYTES)
        wire.records(answer, wire.question_end(answer))  # it can be read


@given(st.binary(max_size=600))
def test_any_bytes_are_survived(message: bytes) -> None:
    """Nothing is raised, and what is answered is a message."""
    check(message)


@given(st.data())
def test_broken_queries_are_survived(data: st.DataObject) -> None:
    """A proper query with some bytes changed, inserted or cut off."""
    names = st.sampled_from(["web", "many", "x.web.back", "web.back", ""])
    size = data.draw(st.sampled_from([0, 512, 1232, 65535]))
    message = bytearray(query(data.draw(names), "A", edns=size))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(message)))
        what = data.draw(st.sampled_from("cid"))
        if what == "c" and at < len(message):
            message[at] = data.draw(st.sampled_from([0, 1, 12, 41, 63, 64, 0xC0, 0xFF]))
        elif what == "i":
            message[at:at] = data.draw(st.binary(min_size=1, max_size=8))
        else:
            del message[at:]
    check(bytes(message))


@given(st.binary(max_size=300), st.integers(0, 320))
@example(b"\xc0\x00", 0)
@example(b"\x01a\xc0\x00", 2)
def test_names_end(message: bytes, at: int) -> None:
    """Whatever a name points at, it is read in bounded time or not at all."""
    names_end(message, at)


def names_end(message: bytes, at: int) -> None:
    """What holds for a name at any place of any message."""
    for read in (wire.expanded, wire.end_of_name):
        try:
            found = read(message, at)
        except wire.Malformed:
            continue
        if isinstance(found, bytes):
            assert len(found) <= 255


class _Heard:
    """Stands for the exchange with a server that has answered."""

    edns = False
    server = Within("web", "192.0.2.53")

    def open(self) -> None:
        """There is no socket."""

    def close(self) -> None:
        """Nor any to close."""


def check_told(body: bytes, flags: int, counts: bytes) -> None:
    """Whatever a server says after the question, who asked gets an answer that can be read.

    Once as it was asked, and once behind a CNAME of ours; and once more from the cache.
    """
    resolver = Resolver(Loop())
    records = ("docs CNAME www.example.com",)
    net = replace(BACK, internal=False, servers=("192.0.2.53",), records=records)
    resolver.swap(Zone.build([net], [endpoint("web", "192.0.2.2", network=net)]))
    asker = resolver.zone.asker_at("network", "n2", bytes([192, 0, 2, 2]))
    forwarder = resolver.forwarder
    waiting: list[tuple[Question, Done]] = []

    def ask(question: Question, _asker: str, done: Done) -> bool:
        waiting.append((question, done))
        return True

    forwarder.ask = ask  # type: ignore[method-assign, assignment]
    for asked in (query("www.example.com"), query("docs", edns=1232), query("docs")):
        answers: list[bytes] = []
        found = resolver.respond(asked, asker, answers.append)
        if waiting:
            question, done = waiting.pop()
            inquiry = _Inquiry(forwarder, question, [], lambda: None, [("web", done)])
            forwarder._by_asker["web"] += 1
            head = b"\0\0" + flags.to_bytes(2) + b"\0\1" + counts
            server = cast("_Exchange", _Heard())
            inquiry.start(server)
            inquiry.heard(server, head + question.packed + body)
            assert found is None
            (found,) = answers
        assert found is not None
        assert found[:2] == asked[:2]
        wire.records(found, wire.question_end(found))


@given(
    st.lists(
        st.tuples(
            st.sampled_from([b"\xc0\x0c", b"\xc0\xff", b"\0", b"\1a\xc0\x0c", b"\1a\0"]),
            st.sampled_from([1, 2, 5, 6, 12, 15, 28, 33, 41, 65280]),
            st.integers(0, 2**32 - 1),
            st.one_of(
                st.binary(max_size=24),
                st.sampled_from([b"\xc0\x0c", b"\0\1\xc0\x0c", b"\xc0\x0c\0" + bytes(20)]),
            ),
        ),
        max_size=4,
    ),
    st.sampled_from([0x8180, 0x8183, 0x8182, 0x8185, 0x8380, 0x8181, 0x818F]),
    st.permutations(range(3)),
    st.integers(0, 4),
)
@example([(b"\xc0\x0c", 5, 1, b"\xc0\xff")], 0x8180, [0, 1, 2], 1)
@example([(b"\xc0\x0c", 1, 1, b"\1\2\3")], 0x8180, [0, 1, 2], 1)
def test_whatever_a_server_says_is_survived(
    said: list[tuple[bytes, int, int, bytes]], flags: int, order: list[int], claimed: int
) -> None:
    """Records with data that is none of their type's, names that lead nowhere, odd codes."""
    body = b"".join(
        owner + type_.to_bytes(2) + b"\0\1" + ttl.to_bytes(4) + len(data).to_bytes(2) + data
        for owner, type_, ttl, data in said
    )
    counts = [len(said), 0, 0] if claimed else [claimed, 0, 0]
    check_told(body, flags, b"".join(counts[at].to_bytes(2) for at in order))


def test_the_longest_message_is_read() -> None:
    """65,535 bytes: as junk, and as a query with that much padding (RFC 7830)."""
    assert rcode(respond(b"\x12\x34\x01\x00" + b"\xff" * 65531, tcp=True)) == "FORMERR"
    padding = 65535 - len(query("web", edns=1232)) - 4
    option = b"\0\x0c" + padding.to_bytes(2) + b"\0" * padding
    message = query("web", edns=1232)[:-2] + len(option).to_bytes(2) + option
    assert len(message) == 65535
    answer = respond(message, tcp=True)
    assert rcode(answer) == "NOERROR"
    assert values(answer) == ["192.0.2.2"]


@pytest.mark.parametrize(
    ("label", "name_bytes", "expected"), [(63, 255, "NXDOMAIN"), (64, 66, "FORMERR")]
)
def test_names_of_the_longest_kind(label: int, name_bytes: int, expected: str) -> None:
    """Labels have 63 bytes at most, names 255 (RFC 1035 section 2.3.4)."""
    name = b""
    while len(name) + 1 < name_bytes:
        size = min(label, name_bytes - 2 - len(name))
        name += bytes([size]) + b"a" * size
    message = query("")[:12] + name + b"\0" + b"\0\1\0\1"
    assert rcode(respond(message)) == expected
    longer = query("")[:12] + name + b"\1a\0" + b"\0\1\0\1"
    assert rcode(respond(longer)) == "FORMERR"


def test_too_long_an_answer_is_cut_by_whole_sets() -> None:
    """50 addresses don't fit 512 bytes: none of them, TC, and the question and OPT stay."""
    plain, edns = respond(query("many")), respond(query("many", edns=512))
    whole = respond(query("many", edns=1232))
    assert plain is not None
    assert edns is not None
    assert (plain[2] & 2, values(plain)) == (2, [])
    assert plain[12:].startswith(b"\4many")
    assert (edns[2] & 2, values(edns)) == (2, [])
    assert edns[-11:-6] == b"\0\0\x29" + wire.UDP_PAYLOAD_BYTES.to_bytes(2)
    assert whole is not None
    assert (whole[2] & 2, len(values(whole))) == (0, 50)
    assert len(values(respond(query("many"), tcp=True))) == 50


def test_additional_data_is_left_out_without_tc() -> None:
    """Only a missing answer or authority makes the answer truncated (RFC 2181 section 9)."""
    answer = b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4\1\2\3\4"
    head = query("web")[:2] + b"\x81\x80\0\1\0\1\0\0\0\2" + query("web")[12:]
    message = head + answer * 3
    cut = wire.fitted(message, len(head) + 20)
    assert cut == message[:10] + b"\0\0" + message[12 : len(head) + 16]
    cut = wire.fitted(message, len(head) + 10)
    assert cut[2] & 2
    assert len(cut) == len(head)


@given(
    st.sampled_from(["x.example.com", "X.eXample.com", "y.example.com"]),
    st.sampled_from([0, 512, 1232, 4096]),
    st.sampled_from([0, wire.RD, wire.RD | wire.AD, wire.RD | wire.CD]),
)
def test_the_quick_answer_from_the_cache_is_the_answer(name: str, edns: int, flags: int) -> None:
    """Byte for byte, wherever there is one."""
    resolver = Resolver(Loop())
    net = replace(BACK, internal=False, servers=("192.0.2.53",))
    resolver.swap(Zone.build([net], [endpoint("web", "192.0.2.2", network=net)]))
    kept = query("x.example.com")[:2] + b"\x85\xb0\0\1\0\1\0\0\0\0" + query("x.example.com")[12:]
    kept += b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\1\2\3\4"
    key = (query("x.example.com")[12:], flags & wire.CD, False, ("192.0.2.53",), "")
    resolver.cache.put(key, kept, wire.records(kept, wire.question_end(kept)))
    asker = resolver.zone.asker_at("network", "n2", bytes([192, 0, 2, 2]))
    assert asker is not None
    asked = query(name, edns=edns, flags=flags)

    road = quick_road(resolver, lambda zone: zone.askers_at("network", "n2"), lambda *_: None)

    fast = road(asked, bytes([192, 0, 2, 2]), 0)

    assert (fast is not None) == (name.lower()[0] == "x" and flags == wire.RD)
    if fast is not None:
        assert fast == resolver.respond(asked, asker, lambda _: None)
        assert values(fast) == ["1.2.3.4"]
