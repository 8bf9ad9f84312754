"""docs/state.md tells the truth: its keys are those there are, its commands work."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from netlib import keys
from netlib.kernel.fake import FakeKernel
from netlib.net import Net
from netlib.store.sqlite import SqliteStore

DOC = (Path(__file__).parents[2] / "docs" / "state.md").read_text()
QUERIES = {
    about: re.sub(r"\\(.)", r"\1", sql)  # as the shell takes it within double quotes
    for about, sql in re.findall(r"^# (.*)\nsqlite3 -readonly \S+ \"(.*)\"$", DOC, re.MULTILINE)
}


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """A state with a network, two sandboxes and a published port."""
    path = tmp_path / "state.db"
    with closing(SqliteStore(path)) as store, Net(store=store, kernel=FakeKernel()) as net:
        net.create("my-net", subnets=["192.0.2.0/24", "2001:db8::/64"])
        for name, publish in (("web", ["8080:80"]), ("client", [])):
            net.create_sandbox(name)
            net.connect("my-net", name, publish=publish)
        yield path


def ask(path: Path, about: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return connection.execute(QUERIES[about]).fetchall()


def test_every_key_is_in_the_table(path: Path) -> None:
    """What is written stands in docs/state.md, and in the docstring of netlib.keys."""
    here = DOC.partition("## In etcd")[0]
    documented = set(re.findall(r"^\| `(\w+/)", here, re.MULTILINE))
    assert documented == set(re.findall(r"^(\w+/)", keys.__doc__ or "", re.MULTILINE))
    with closing(SqliteStore(path)) as store:
        written = {record.key.partition("/")[0] + "/" for record in store.range("", "~")}
    assert written <= documented
    assert documented - written <= {
        "behind/",
        "clash/",
        "cluster/",
        "device/",
        "host/",
        "linked/",
        "look/",
        "mac/",
        "node/",
        "offer/",
        "operation/",
        "peer/",
        "place/",
        "single/",
    }


def test_its_queries_answer(path: Path) -> None:
    """Each of them finds in a small state what is there."""
    assert len(QUERIES) == 6
    counts = dict(ask(path, "how much there is of everything"))  # type: ignore[arg-type]
    assert (counts["network"], counts["endpoint"], counts["lease"]) == (1, 2, 4)
    ((name, ready, _),) = ask(path, "the networks, and how far each has come")
    assert (name, ready) == ("my-net", "ready")
    ports = ask(path, "who publishes which host port")
    assert ("port/4/tcp/08080/*", "web") in ports
    holders = [sandbox for _, sandbox in ask(path, "who holds which address")]
    assert sorted(map(str, holders)) == ["client", "client", "web", "web"]
    (latest, *_) = ask(path, "what happened last")
    with closing(SqliteStore(path)) as store:
        assert latest[0] == store.revision()


def test_its_query_for_what_is_unfinished(path: Path) -> None:
    """Nothing in a state that is at rest; what is pending, when there is any."""
    (about,) = (title for title in QUERIES if "not finished" in title)
    assert ask(path, about) == []
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "UPDATE entries SET value = json_set(value, '$.endpoint.state', 'pending')"
            " WHERE key GLOB 'endpoint/*'"
        )
    assert [str(key).partition("/")[0] for (key,) in ask(path, about)] == ["endpoint"] * 2
