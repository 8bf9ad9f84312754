"""What `net run` is asked for, before any host is touched."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from netlib.codec import from_json, to_json
from netlib.errors import InvalidName, InvalidOption, InvalidRequest, NetError
from netlib.frontends.cli.arguments import attach_sources, links, pairs, port_requests
from netlib.ports import parse
from netlib.run.request import (
    Attachment,
    HostEntry,
    RunRequest,
    parse_attachment,
    parse_host,
)


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("front", Attachment(network="front")),
        ("front:", Attachment(network="front")),
        (
            "front:ip=192.0.2.9,ip6=2001:db8::9,mac=02:00:5e:00:53:01",
            Attachment(
                network="front", addresses=("192.0.2.9", "2001:db8::9"), mac="02:00:5e:00:53:01"
            ),
        ),
        ("front:alias=a,alias=b", Attachment(network="front", aliases=("a", "b"))),
        (
            "front:interface_name=lan0,gw_priority=-3",
            Attachment(network="front", ifname="lan0", gateway_priority=-3),
        ),
        (
            "front:link=db:sql,link=web",
            Attachment(network="front", links={"db": "sql", "web": "web"}),
        ),
        ("front:metric=7", Attachment(network="front", options={"metric": "7"})),
    ],
)
def test_attachments(text: str, meaning: Attachment) -> None:
    """Our words and other tools' for the same; the rest are the endpoint's options."""
    assert parse_attachment(text) == meaning


@pytest.mark.parametrize("text", [":ip=192.0.2.1", "", "front:ip", "front:=x",
                                  "front:mac=a,mac=b", "front:gw-priority=high",
                                  "front:gw-priority=--5"])  # fmt: skip
def test_attachments_that_make_no_sense(text: str) -> None:
    """Refused, with what is possible."""
    with pytest.raises((InvalidOption, InvalidRequest)) as caught:
        parse_attachment(text)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("text", "entry"),
    [
        ("db:192.0.2.5", HostEntry(name="db", address=ip_address("192.0.2.5"))),
        ("db=192.0.2.5", HostEntry(name="db", address=ip_address("192.0.2.5"))),
        ("db:2001:db8::5", HostEntry(name="db", address=ip_address("2001:db8::5"))),
        ("db:[2001:db8::5]", HostEntry(name="db", address=ip_address("2001:db8::5"))),
        ("out:host-gateway", HostEntry(name="out", address=None)),
    ],
)
def test_entries_for_hosts(text: str, entry: HostEntry) -> None:
    """Docker's forms."""
    assert parse_host(text) == entry


@pytest.mark.parametrize("text", ["db", ":192.0.2.5", "db:", "db:here", "d b:192.0.2.5"])
def test_entries_that_make_no_sense(text: str) -> None:
    """Refused before anything is started."""
    with pytest.raises(NetError):
        parse_host(text)


def test_a_network_is_given_once() -> None:
    """Twice would fail half way, and say that the sandbox is on it."""
    with pytest.raises(InvalidRequest, match="--network front is given twice"):
        RunRequest(command=("true",), attachments=(Attachment(network="front"),) * 2)


def test_names_are_made_up_and_hostnames_follow() -> None:
    """Two requests differ; a name longer than a hostname may be is cut."""
    one, other = (RunRequest(command=("true",)) for _ in range(2))
    assert one.name != other.name
    assert one.own_hostname == one.name
    long = RunRequest(command=("true",), name="a" * 63 + "-b")
    assert long.own_hostname == "a" * 63
    with pytest.raises(InvalidName):
        RunRequest(command=("true",), hostname="a" * 65)


@pytest.mark.parametrize("domain", [".", "example.com", "example.com.", "_tcp.my-net", "a"])
def test_domains_to_search(domain: str) -> None:
    """Also none, and those of services (RFC 2782)."""
    assert RunRequest(command=("true",), search=(domain,)).search == (domain,)


@pytest.mark.parametrize("text", ["", "a b", "a\nnameserver 192.0.2.1", "a..b", "-a", "a" * 254])
def test_domains_that_are_none(text: str) -> None:
    """Refused, and so is what would be another line of resolv.conf."""
    with pytest.raises(InvalidName, match="no domain"):
        RunRequest(command=("true",), search=(text,))


@pytest.mark.parametrize("text", ["", "ndots:1 rotate", "rotate\nnameserver 192.0.2.1"])
def test_options_of_resolvers_that_are_none(text: str) -> None:
    """One word each: another line would be another setting."""
    with pytest.raises(InvalidOption, match="no option"):
        RunRequest(command=("true",), resolver_options=(text,))


def test_a_request_survives_its_way_to_the_background() -> None:
    """The supervisor reads what was asked for from JSON."""
    request = RunRequest(
        command=("sh", "-c", "true"),
        name="web",
        attachments=(parse_attachment("front:ip=192.0.2.9,link=db"),),
        ports=(parse("127.0.0.1:8080:80/udp", ["198.51.100.0/24"]),),
        nameservers=(ip_address("2001:db8::53"),),
        search=("example.com",),
        hosts=(parse_host("db:192.0.2.5"), parse_host("out:host-gateway")),
        labels={"a": "b"},
    )

    assert from_json(RunRequest, to_json(request)) == request


@pytest.mark.parametrize(
    ("line", "specs"),
    [
        ("-p 80 --from 192.0.2.0/24", {"80/tcp": ["192.0.2.0/24"]}),
        ("-p80 --from=192.0.2.0/24 -p 81", {"80/tcp": ["192.0.2.0/24"], "81/tcp": []}),
        (
            "--publish=80 --from 192.0.2.1 --from 2001:db8::/32",
            {"80/tcp": ["192.0.2.1/32", "2001:db8::/32"]},
        ),
        ("-p 80 -- --from 192.0.2.0/24", {"80/tcp": []}),
    ],
)
def test_from_belongs_to_the_port_before_it(line: str, specs: dict[str, list[str]]) -> None:
    """And what comes after -- is the command's own."""
    words = attach_sources(line.split(), positional=False)
    own = words[: words.index("--")] if "--" in words else words
    texts = [word.removeprefix("-p").removeprefix("--publish=") for word in own]
    requests = port_requests(text for text in texts if text)

    assert {str(r): [str(s) for s in r.sources] for r in requests} == specs


@pytest.mark.parametrize(
    "line", ["--from 192.0.2.0/24", "-p 80 --name x --from 192.0.2.0/24", "-p 80 --from"]
)
def test_from_somewhere_else(line: str) -> None:
    """Nothing is guessed."""
    import click

    with pytest.raises(click.UsageError):
        attach_sources(line.split(), positional=False)


def test_pairs_and_links() -> None:
    """KEY=VALUE and SANDBOX[:ALIAS]."""
    import click

    assert pairs("-o", ["a=1", "b=x=y", "a=1"]) == {"a": "1", "b": "x=y"}
    assert pairs("--label", ["a"], bare=True) == {"a": ""}
    assert links(["db:sql", "web"]) == {"db": "sql", "web": "web"}
    for bad in (["a"], ["=1"], ["a=1", "a=2"]):
        with pytest.raises(click.UsageError):
            pairs("-o", bad)
    for bad in ([":alias"], ["db:one", "db:two"], ["db", "db:two"]):
        with pytest.raises(InvalidRequest, match="link"):
            links(bad)
    with pytest.raises(InvalidRequest, match="db is linked twice, as one and as two"):
        parse_attachment("front:link=db:one,link=db:two")
