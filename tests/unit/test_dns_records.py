"""Custom records: what `--dns-record` takes."""

from __future__ import annotations

import pytest

from netlib.dns import wire
from netlib.dns.records import check_records, custom_sets
from netlib.errors import InvalidOption


@pytest.mark.parametrize(
    "text",
    [
        "db A 192.0.2.9",
        "db 5 IN AAAA 2001:db8::9",
        "_http._tcp.web SRV 0 0 80 web",
        "*.apps CNAME web",
        'web TXT "hello world" more',
        "mail.example MX 10 mail",
        "web HTTPS 1 . alpn=h2",
        "old TYPE65280 \\# 2 abcd",
    ],
)
def test_a_record_in_zone_file_form_is_taken(text: str) -> None:
    """Any type, TTL and class may be left out."""
    check_records([text])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "db",
        "db A",
        "@ A 192.0.2.9",
        "db A 192.0.2",
        "db A 192.0.2.256",
        "db AAAA 192.0.2.9",
        "db NONSENSE 1",
        "db SRV 1 2 web",
        "db CH A 192.0.2.9",
        f"{'a' * 64} A 192.0.2.9",
        "a..b A 192.0.2.9",
        "db A 192.0.2.9\nweb A 192.0.2.8",
    ],
)
def test_what_is_no_record_is_refused(text: str) -> None:
    """With the form it should have, whatever the parser raises."""
    with pytest.raises(InvalidOption, match=r"NAME \[TTL\] TYPE DATA|class"):
        check_records([text])


@pytest.mark.parametrize("other", ["Web A 192.0.2.9", "web CNAME db", 'web TXT "x"'])
def test_an_alias_has_no_other_records(other: str) -> None:
    """Else who asks for one of them is told now this, now that (RFC 1034 section 3.6.2)."""
    with pytest.raises(InvalidOption, match="web is an alias"):
        check_records(["web CNAME db2", "db2 A 192.0.2.9", other])


def test_an_owner_of_one_label_is_known_like_a_sandbox() -> None:
    """Alone and with the network's name; one with dots only as it stands."""
    found = custom_sets(["db A 192.0.2.9", "x.example A 192.0.2.8"], "my-net")

    assert set(found) == {wire.packed_name(name) for name in ("db", "db.my-net", "x.example")}
