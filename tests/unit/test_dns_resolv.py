"""resolv.conf and hosts files, as functions of text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netlib.dns.resolv import (
    ResolvConf,
    check_servers,
    check_words,
    extra_host,
    hosts_text,
    parse_hosts,
    sandbox_resolv_conf,
)
from netlib.errors import InvalidOption

HOST = ResolvConf.parse(
    """
# made by hand
nameserver 127.0.0.53
nameserver 198.51.100.53 # the office
nameserver fe80::1%eth0
nameserver not-an-address
domain old.example
search corp.example example.com\t# both
options edns0 trust-ad
options ndots:2 ; as ever
  # nothing
sortlist 192.0.2.0
"""
)


def test_a_file_is_read_as_a_stub_reads_it() -> None:
    """The last search counts, options add up, what is unknown or wrong is left out."""
    assert (
        ResolvConf(
            servers=("127.0.0.53", "198.51.100.53", "fe80::1%eth0"),
            search=("corp.example", "example.com"),
            options=("edns0", "trust-ad", "ndots:2"),
        )
        == HOST
    )


def test_a_sandbox_asks_our_resolver() -> None:
    """It keeps the host's search and options, but a name without dots is a name here."""
    conf = sandbox_resolv_conf(host=HOST, resolvers=["192.0.2.1", "2001:db8::1"])

    assert conf.text("written by netlib") == (
        "# written by netlib\n"
        "nameserver 192.0.2.1\n"
        "nameserver 2001:db8::1\n"
        "search corp.example example.com\n"
        "options edns0 trust-ad ndots:0\n"
    )


def test_options_of_ones_own_are_kept_as_given() -> None:
    """`--dns-opt ndots:3` wins, `--dns-search .` means none."""
    conf = sandbox_resolv_conf(
        host=HOST, resolvers=["192.0.2.1"], search=["."], options=["ndots:3", "rotate"]
    )

    assert conf.text() == "nameserver 192.0.2.1\noptions ndots:3 rotate\n"


def test_without_our_resolver_it_asks_servers_that_it_reaches() -> None:
    """On the default bridge: not the host's loopback, no scope of the host's; `--dns` first."""
    assert sandbox_resolv_conf(host=HOST).servers == ("198.51.100.53",)
    assert sandbox_resolv_conf(host=HOST, servers=["203.0.113.53"]).servers == ("203.0.113.53",)


def test_a_stub_reads_three_servers_only() -> None:
    """MAXNS of resolv.conf(5)."""
    conf = sandbox_resolv_conf(host=HOST, resolvers=[f"192.0.2.{n}" for n in range(1, 6)])
    assert len(conf.servers) == 3


@given(
    st.lists(st.ip_addresses().map(str), max_size=4, unique=True),
    st.lists(st.from_regex(r"[a-z]{1,9}(\.[a-z]{1,9})?", fullmatch=True), max_size=4),
    st.lists(st.from_regex(r"[a-z]{1,9}(:[0-9])?", fullmatch=True), max_size=4, unique=True),
)
def test_what_is_written_is_read_back(
    servers: list[str], search: list[str], options: list[str]
) -> None:
    """text() and parse() are inverse."""
    conf = ResolvConf(servers=tuple(servers), search=tuple(search), options=tuple(options))
    assert ResolvConf.parse(conf.text("a\ncomment")) == conf


def test_servers_are_addresses() -> None:
    """`--dns` takes no names: who would resolve them?"""
    assert check_servers(["192.0.2.53", "fe80::1%eth0"]) == ("192.0.2.53", "fe80::1%eth0")
    for text in ("dns.example", "192.0.2.53#5353", ""):
        with pytest.raises(InvalidOption, match="is no address"):
            check_servers([text])


def test_a_networks_servers_may_have_ports() -> None:
    """We ask them, and can be told one."""
    assert check_servers(["192.0.2.53#5353"], ports=True) == ("192.0.2.53#5353",)
    for text in ("192.0.2.53#", "192.0.2.53#dns", "192.0.2.53#0", "192.0.2.53#65536", "x#53"):
        with pytest.raises(InvalidOption, match="is no address"):
            check_servers([text], ports=True)


@pytest.mark.parametrize("word", ["", " ", "a b", "a\nnameserver 192.0.2.66", "a\0"])
def test_search_domains_and_options_are_single_words(word: str) -> None:
    """What has more in it would be another line of the sandbox's resolv.conf."""
    with pytest.raises(InvalidOption, match="--dns-opt"):
        check_words(["ndots:1", word], "--dns-opt")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("db:192.0.2.9", [("192.0.2.9", "db")]),
        ("db=192.0.2.9", [("192.0.2.9", "db")]),
        ("db:2001:db8::9", [("2001:db8::9", "db")]),
        ("db:[2001:db8::9]", [("2001:db8::9", "db")]),
        ("gw:host-gateway", [("192.0.2.1", "gw"), ("2001:db8::1", "gw")]),
    ],
)
def test_extra_hosts(text: str, expected: list[tuple[str, str]]) -> None:
    """`--add-host`, in all of Docker's forms."""
    assert extra_host(text, ["192.0.2.1", "2001:db8::1"]) == expected


@pytest.mark.parametrize("text", ["db", "db:", ":192.0.2.9", "db:nosuch", "a b:192.0.2.9", ""])
def test_what_is_no_host_is_refused(text: str) -> None:
    """With the form it should have."""
    with pytest.raises(InvalidOption, match="is no host"):
        extra_host(text, [])


def test_host_gateway_needs_a_gateway() -> None:
    """A sandbox without network has none."""
    with pytest.raises(InvalidOption, match="gateway"):
        extra_host("gw:host-gateway", [])


def test_a_hosts_file_names_loopback_itself_and_the_extra_hosts() -> None:
    """In that order, and it can be read back."""
    text = hosts_text(
        addresses=["192.0.2.2", "2001:db8::2"],
        names=["web", "web", "www1"],
        extra=[("203.0.113.1", "db")],
        comment="written by netlib",
    )

    lines = parse_hosts(text)
    assert text.startswith("# written by netlib\n127.0.0.1\tlocalhost\n")
    assert lines[-3:] == [
        ("192.0.2.2", ("web", "www1")),
        ("2001:db8::2", ("web", "www1")),
        ("203.0.113.1", ("db",)),
    ]
    assert len(lines) == 9
