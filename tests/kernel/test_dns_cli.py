"""`net dns` on a real host."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from support.host import Host
from support.patience import eventually
from support.program import PROGRAM, Program

pytestmark = pytest.mark.kernel

PAGE = (Path(__file__).parents[2] / "docs" / "json.md").read_text()


def fields(section: str) -> set[str]:
    """The fields that a section of docs/json.md names."""
    (body,) = re.findall(rf"^## {section}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    rows = re.findall(r"^\| (`.*?) \|", body, re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`(\w+)`", row)}


@pytest.fixture
def net(host: Host) -> Program:
    """The program, with sandboxes web and db on a network."""
    net = Program(host)
    net("create my-net --subnet 198.51.100.0/24")
    for name in ("web", "db"):
        net(f"sandbox create {name}")
        net(f"connect my-net {name}")
    return net


def test_query_shows_what_a_sandbox_is_told(net: Program) -> None:
    """As a zone file has it, or as JSON; 3 for a name that does not exist, 1 for an error."""
    assert net("dns query db --from web").stdout == "db. 0 A 198.51.100.3\n"
    assert net("dns query db AAAA --from web").stdout == "NOERROR: no AAAA for db\n"
    told = json.loads(net("dns query db.my-net --from web --json").stdout)
    assert told["answers"] == [
        {"name": "db.my-net.", "ttl": 0, "type": "A", "data": "198.51.100.3"}
    ]
    assert (told["code"], told["server"]) == ("NOERROR", "198.51.100.1")
    assert told.keys() - {"version"} == fields("answer")
    assert net("dns query db AXFR --from web", status=1).stdout == "REFUSED: no AXFR for db\n"


def test_the_files_to_mount_are_shown(net: Program, host: Host) -> None:
    """For who starts a container elsewhere: they tell of the gateway, and of its own name."""
    box = host.sandbox("theirs")
    net(f"connect my-net netns:{box.netns.path}")
    (network,) = json.loads(net("inspect my-net").stdout)
    endpoint = network["endpoints"][-1]
    (listed,) = [
        each
        for each in json.loads(net("ps --json").stdout)["sandboxes"]
        if each["name"] == endpoint["sandbox"]
    ]
    assert listed["files"] == endpoint["files"]
    folder = Path(endpoint["files"])
    assert "nameserver 198.51.100.1\n" in (folder / "resolv.conf").read_text()
    assert "198.51.100.4\ttheirs\n" in (folder / "hosts").read_text()


def test_a_path_is_no_name(net: Program, host: Host) -> None:
    """Who was given as one is known by a name that can be one, in files and in answers."""
    box = host.sandbox("theirs")
    net(f"connect my-net netns:{box.netns.path}")
    net(f"connect --alias other my-net netns:/proc/{os.getpid()}/fd/{host.sandbox('x').descriptor}")
    assert net("dns query 198.51.100.4 --from web").stdout.endswith(" PTR theirs.my-net.\n")
    (name,) = net("dns query 198.51.100.5 --from web").stdout.split()[-1:]
    assert re.fullmatch(r"[0-9a-f]{12}\.my-net\.", name), "its short id"
    assert net(f"dns query {name} --from web").stdout.endswith(" A 198.51.100.5\n")


def test_stats_count_what_was_asked(net: Program) -> None:
    """By code and name."""
    net("dns query db --from web")
    net("dns query db --from web")
    shown = net("dns stats").stdout
    assert "queries    2 (2 NOERROR)" in shown
    assert "2 db.\n" in shown
    resolver = json.loads(net("dns stats --json").stdout)["resolver"]
    assert resolver["names"] == {"db.": 2}
    assert resolver.keys() == fields("resolver")


def test_stats_tell_who_says_nothing(net: Program) -> None:
    """And how often it was asked in vain."""
    net("update my-net --dns-add 192.0.2.66")
    told = net("dns query www.example.com --from web", status=1).stdout
    assert told == "SERVFAIL: no A for www.example.com\n"
    assert re.search(
        r"^silent     192\.0\.2\.66 \(\d+ unanswered\)$", net("dns stats").stdout, re.M
    )


@pytest.mark.parametrize("options", [(), ("--json",)], ids=["text", "json"])
def test_the_log_shows_each_query(net: Program, host: Host, options: tuple[str, ...]) -> None:
    """Who asks for what, and what became of it, as it comes."""
    log = host.popen(
        *PROGRAM, "dns", "log", *options, env=net.environment, stderr=subprocess.DEVNULL
    )
    assert log.stdout is not None

    def asked() -> bool:
        net("dns query db --from web")
        return bool(json.loads(net("dns stats --json").stdout)["resolver"]["log"])

    eventually(asked)
    net("dns query web AAAA --from db")
    lines = iter(log.stdout.readline, "")
    if options:
        assert json.loads(next(lines)).keys() - {"version"} == fields("query")
    else:
        assert "db web. AAAA here NOERROR\n" in lines
    log.kill()
    log.wait()
    log.stdout.close()


def test_without_networks_there_is_no_resolver(host: Host) -> None:
    """And that is no failure."""
    net = Program(host)
    assert net("dns stats").stdout == "no resolver runs: no network has names\n"
