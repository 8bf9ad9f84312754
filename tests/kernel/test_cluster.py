"""Hosts of a cluster on real packets: what is made on one is there on all, and reached."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.cluster import RealCluster, real_cluster
from support.host import Host
from support.patience import eventually

pytestmark = [pytest.mark.kernel, pytest.mark.slow]


@pytest.fixture
def cluster(host: Host, tmp_path: Path) -> Iterator[RealCluster]:
    """Two hosts."""
    with real_cluster(host, tmp_path, 2) as cluster:
        yield cluster


def test_sandboxes_on_two_hosts_reach_each_other(cluster: RealCluster) -> None:
    """By address and by name; what goes is gone."""
    one, two = cluster.hosts
    cluster.make()
    web = one.connect("app", "web")
    db = two.connect("app", "db")
    eventually(lambda: db.mac in one.remotes())
    one.boxes["web"].run("ping", "-c", "1", "-W", "2", str(db.addresses[0].ip))
    two.boxes["db"].run("ping", "-c", "1", "-W", "2", str(web.addresses[0].ip))
    cluster.all_agree()
    two.disconnect("app", "db")
    eventually(lambda: db.mac not in one.remotes())
    cluster.all_agree()
