"""Whatever is typed: an error of ours that says what to do, or it works; never a fault of ours."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.shell import Shell

from netlib.kernel.fake import FakeKernel
from netlib.net import Net
from netlib.store.memory import MemoryStore

# Lines with a gap; what fills it is typed by somebody who means ill, or is tired.
LINES = [
    ["create", "--", "?"],
    ["create", "-d", "?", "x"],
    ["create", "--subnet", "?", "x"],
    ["create", "--subnet", "192.0.2.0/24", "--gateway", "?", "x"],
    ["create", "--subnet", "192.0.2.0/24", "--ip-range", "?", "x"],
    ["create", "--subnet", "192.0.2.0/24", "--aux-address", "?", "x"],
    ["create", "--aux-address", "a=?", "--subnet", "2001:db8::/64", "x"],
    ["create", "--dns-record", "?", "x"],
    ["create", "-o", "?", "x"],
    ["create", "-o", "mtu=?", "x"],
    ["create", "-o", "bridge_name=?", "x"],
    ["create", "-o", "host_binding_ipv4=?", "x"],
    ["create", "-o", "outbound_address=?", "x"],
    ["create", "-o", "gateway_mode=?", "x"],
    ["create", "--label", "?", "x"],
    ["ls", "--filter", "?"],
    ["ls", "--filter", "label=?"],
    ["ls", "--filter", "id=?"],
    ["inspect", "--", "?"],
    ["rm", "--dry-run", "--", "?"],
    ["update", "-o", "?", "front"],
    ["update", "--subnet", "?", "front"],
    ["prune", "--dry-run", "--filter", "until=?"],
    ["connect", "--", "?", "db"],
    ["connect", "--", "front", "?"],
    ["connect", "--ip", "?", "front", "db"],
    ["connect", "--mac", "?", "front", "db"],
    ["connect", "--alias", "?", "front", "db"],
    ["connect", "--link", "?", "front", "db"],
    ["connect", "--ifname", "?", "front", "db"],
    ["connect", "--gw-priority", "?", "front", "db"],
    ["connect", "-o", "?", "front", "db"],
    ["connect", "-o", "metric=?", "front", "db"],
    ["connect", "-o", "sysctls=?", "front", "db"],
    ["connect", "-p", "?", "front", "db"],
    ["connect", "-p", "80", "--from", "?", "front", "db"],
    ["disconnect", "--", "front", "?"],
    ["publish", "--", "web", "?"],
    ["unpublish", "--", "web", "?"],
    ["port", "--", "?"],
    ["sandbox", "create", "--", "?"],
    ["sandbox", "create", "--hostname", "?", "x"],
    ["sandbox", "rm", "--", "?"],
    ["stop", "-t", "?", "web"],
    ["check", "--", "?"],
    ["rules", "--", "?"],
    ["exec", "?", "true"],
    ["run", "--dry-run", "--name", "?", "--", "true"],
    ["run", "--dry-run", "--network", "?", "--", "true"],
    ["run", "--dry-run", "--network", "front:?", "--", "true"],
    ["run", "--dry-run", "--network", "front:ip=?", "--", "true"],
    ["run", "--dry-run", "--network", "front", "-p", "?", "--", "true"],
    ["run", "--dry-run", "--hostname", "?", "--", "true"],
    ["run", "--dry-run", "--dns", "?", "--", "true"],
    ["run", "--dry-run", "--add-host", "?", "--", "true"],
]
NASTY = [
    "", " ", "-", "--", "/", "..", ":", "::", "=", "a=", "=a", "0", "-1", "65536", "1" * 400, "%",
    "front", "web", "host", "0.0.0.0", "0.0.0.0/0", "::/0", "255.255.255.255", "ff02::1/128",
    "192.0.2.0/24", "192.0.2.1-192.0.2.0", "192.0.2.0/24/24", "fe80::1%eth0", "::ffff:192.0.2.1",
    "\0", "\n", "\x1b[31m", "é" * 200, "🐳", "\udcff", "80:80:80:80", "[::1]:80:80", "[::]:0:80",
    "1-65535:1-65535", "80/", "80/tcp/udp", "pid:1", "pid:-1", "pid:x", "netns:", "netns:../../x",
    "docker:", "docker:a b", "podman:x", "container:web", "a" * 254, "00:00:00:00:00:00",
    "9" * 5000, "1h1h", "99999999999999999999d", "2026-13-45", "nan", "inf", "1e400", "²", "\u0661",
]  # fmt: skip


def is_civil(line: list[str], word: str) -> None:
    """The command ends with a status of the contract; an error has a hint."""
    with Net("/nonexistent/netlib", store=MemoryStore(), kernel=FakeKernel()) as net:
        net.create("front", subnets=["198.51.100.0/24"])
        net.create_sandbox("web")
        net.create_sandbox("db")
        net.connect("front", "web", publish=["8080:80"])
        said = Shell(net)("", *[part.replace("?", word) for part in line], status=None)

    assert 0 <= said.status <= 7
    assert "report what it shows" not in said.err, said.err
    if said.status and said.err:
        assert said.err.startswith(("error: ", "Usage: ")), said.err
        assert "\nhint: " in said.err or said.err.startswith("Usage: "), said.err


@pytest.mark.parametrize("line", LINES, ids=" ".join)
def test_what_people_have_typed(line: list[str]) -> None:
    """Values that have broken programs before."""
    for word in NASTY:
        is_civil(line, word)


@pytest.mark.parametrize("line", LINES, ids=" ".join)
@settings(max_examples=10, deadline=None, derandomize=True)
@given(word=st.text(max_size=40) | st.from_regex(r"[0-9a-f:./\[\]-]{1,30}", fullmatch=True))
def test_whatever_is_typed(line: list[str], word: str) -> None:
    """Any text at all."""
    is_civil(line, word)
