"""Real stubs get what they ask for: glibc, musl, busybox, dig, asyncio."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.host import OUTSIDER4, Host, Place
from support.resolving import DB4, GATEWAY4, WEB4, WEB6, Running, build
from support.upstream import echo, records, upstream

from netlib.dns.resolv import ResolvConf, hosts_text, sandbox_resolv_conf

pytestmark = pytest.mark.kernel


@pytest.fixture
def web(host: Host) -> Iterator[Place]:
    """A sandbox on a network with a resolver."""
    web, _ = build(host)
    running = Running()
    yield web
    running.close()


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """The sandbox's resolv.conf and hosts."""
    conf = sandbox_resolv_conf(host=ResolvConf(search=("corp.example",)), resolvers=[GATEWAY4])
    (tmp_path / "resolv.conf").write_text(conf.text())
    (tmp_path / "hosts").write_text(hosts_text(extra=[("203.0.113.1", "extra")]))
    return tmp_path / "resolv.conf", tmp_path / "hosts"


def run(web: Place, files: tuple[Path, Path], *argv: str, check: bool = True) -> str:
    """What a program in the sandbox prints, with its resolv.conf and hosts in place."""
    conf, hosts = files
    script = 'mount --bind "$1" /etc/resolv.conf; mount --bind "$2" /etc/hosts; shift 2; exec "$@"'
    done = web.run(
        *("unshare", "--mount", "sh", "-c", script, "sh", str(conf), str(hosts), *argv),
        check=check,
    )
    return done.stdout


@pytest.mark.parametrize("name", ["db", "DB", "db.my-net", "db.", "0123456789ab"])
def test_glibc_finds_a_name(web: Place, files: tuple[Path, Path], name: str) -> None:
    """A and AAAA are asked for at once: the name has only one of them."""
    assert DB4 in run(web, files, "getent", "ahosts", name)


def test_glibc_finds_both_families(web: Place, files: tuple[Path, Path]) -> None:
    """Under an alias."""
    found = run(web, files, "getent", "ahosts", "front")
    assert {line.split()[0] for line in found.splitlines()} == {WEB4, WEB6}


@pytest.mark.parametrize(("address", "name"), [(DB4, "db.my-net"), (WEB6, "web.my-net")])
def test_glibc_finds_the_name_of_an_address(
    web: Place, files: tuple[Path, Path], address: str, name: str
) -> None:
    """`getent hosts ADDRESS`."""
    assert run(web, files, "getent", "hosts", address).split() == [address, name]


def test_the_hosts_file_comes_first(web: Place, files: tuple[Path, Path]) -> None:
    """`--add-host`, and localhost."""
    assert run(web, files, "getent", "hosts", "extra").split()[0] == "203.0.113.1"
    assert "127.0.0.1" in run(web, files, "getent", "ahostsv4", "localhost")


def test_glibc_finds_what_is_outside(host: Host, web: Place, files: tuple[Path, Path]) -> None:
    """By its full name, and by the search list where the name alone does not exist."""
    with upstream(host.outsider(), OUTSIDER4, echo()) as server:
        assert "203.0.113.7" in run(web, files, "getent", "ahostsv4", "www.example.com")
        server.behaviour = lambda asked, tcp: (
            echo() if str(asked.q.qname).endswith("corp.example.") else records(code=3)
        )(asked, tcp)
        assert "203.0.113.7" in run(web, files, "getent", "ahostsv4", "intranet")


def test_glibc_is_told_that_a_name_does_not_exist(
    host: Host, web: Place, files: tuple[Path, Path]
) -> None:
    """Exit status 2 of getent: not found."""
    with upstream(host.outsider(), OUTSIDER4, records(code=3)):
        script = "getent ahosts nosuch.example; echo $?"
        assert run(web, files, "sh", "-c", script).strip() == "2"


def test_busybox_finds_a_name(web: Place, files: tuple[Path, Path]) -> None:
    """It sends A and AAAA as musl does, and takes NODATA for what it is."""
    found = run(web, files, "busybox", "nslookup", "db.")
    assert DB4 in found
    assert "NXDOMAIN" not in found
    assert WEB6 in run(web, files, "busybox", "nslookup", "web.")
    assert "db.my-net" in run(web, files, "busybox", "nslookup", DB4)


MUSL = """
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
int main(int argc, char **argv) {
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *found;
    char text[NI_MAXHOST];
    int status = getaddrinfo(argv[1], 0, &hints, &found);
    if (status == EAI_NONAME) puts("no such name");
    if (status) return 1;
    for (; found; found = found->ai_next)
        if (!getnameinfo(found->ai_addr, found->ai_addrlen, text, sizeof text, 0, 0,
                         argc > 2 ? NI_NAMEREQD : NI_NUMERICHOST))
            puts(text);
}
"""


@pytest.fixture(scope="module")
def musl(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A program with musl's stub resolver in it, as every program of Alpine Linux has."""
    folder = tmp_path_factory.mktemp("musl")
    (folder / "ask.c").write_text(MUSL)
    subprocess.run(
        ["musl-gcc", "-static", "-o", str(folder / "ask"), str(folder / "ask.c")],
        check=True,
        timeout=60,
    )
    return str(folder / "ask")


@pytest.mark.parametrize("name", ["db", "DB", "db.my-net", "db."])
def test_musl_finds_a_name(web: Place, files: tuple[Path, Path], musl: str, name: str) -> None:
    """It asks all its servers for A and AAAA at once, and fails if one of those is NXDOMAIN."""
    assert run(web, files, musl, name).split() == [DB4]


def test_musl_finds_both_families_and_a_name(
    web: Place, files: tuple[Path, Path], musl: str
) -> None:
    """Under an alias, and by address."""
    assert set(run(web, files, musl, "front").split()) == {WEB4, WEB6}
    assert run(web, files, musl, DB4, "name").split() == ["db.my-net"]


def test_musl_is_told_that_a_name_does_not_exist(
    host: Host, web: Place, files: tuple[Path, Path], musl: str
) -> None:
    """And finds what is outside."""
    with upstream(host.outsider(), OUTSIDER4, records(code=3)) as server:
        assert run(web, files, musl, "nosuch.example", check=False).strip() == "no such name"
        server.behaviour = echo()
        assert "203.0.113.7" in run(web, files, musl, "www.example.com")


@pytest.mark.parametrize("options", [(), ("+tcp",), ("+noedns",), ("+bufsize=512", "+dnssec")])
def test_dig_finds_a_name(web: Place, files: tuple[Path, Path], options: tuple[str, ...]) -> None:
    """With its cookie, over TCP, with and without EDNS."""
    found = run(web, files, "dig", *options, "web", "A", "web", "AAAA", "db", "AAAA", "db", "MX")
    assert found.count("status: NOERROR") == 4
    assert WEB4 in found
    assert WEB6 in found
    assert "WARNING" not in found


def test_dig_keeps_one_connection_for_several_queries(web: Place, files: tuple[Path, Path]) -> None:
    """RFC 7766."""
    found = run(web, files, "dig", "+tcp", "+keepopen", "web", "db", "front.my-net", "-x", DB4)
    assert found.count("status: NOERROR") == 4
    assert "db.my-net." in found


def test_asyncio_finds_many_names_at_once(web: Place, files: tuple[Path, Path]) -> None:
    """By getaddrinfo in threads, as Python's loop does it."""
    script = """
import asyncio, json
async def main():
    loop = asyncio.get_running_loop()
    names = ["web", "db", "front", "db.my-net"] * 10
    found = await asyncio.gather(*(loop.getaddrinfo(name, 80) for name in names))
    print(json.dumps([sorted({each[4][0] for each in one}) for one in found]))
asyncio.run(main())
"""
    found = json.loads(run(web, files, sys.executable, "-c", script))
    assert found == [[WEB4, WEB6], [DB4], [WEB4, WEB6], [DB4]] * 10
