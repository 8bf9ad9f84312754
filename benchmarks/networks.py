"""Making and removing a network, beside as many iptables calls as a script would make."""

from __future__ import annotations

from support.host import Host, new_host

from benchmarks.measure import Series, ratio, show
from netlib import Net
from netlib.settings import Backend

ROUNDS = 20
RULES = 10
BACKENDS: tuple[Backend, ...] = ("nftables", "iptables")


def run() -> None:
    """Warm process; ten rules appended and deleted one by one in the same run."""
    for firewall in BACKENDS:
        with new_host() as host, Net(host.state_dir, firewall=firewall) as net:
            host.outsider()
            net.create("first")  # what all networks share is there, as on any host in use
            made, removed = Series("net create"), Series("net rm")
            appended = Series(f"{RULES} x iptables -A")
            deleted = Series(f"{RULES} x iptables -D")
            for _ in range(ROUNDS):
                made.time(lambda net=net: net.create("bench"))  # type: ignore[misc]
                appended.time(lambda host=host: _rules(host, "-A"))  # type: ignore[misc]
                removed.time(lambda net=net: net.remove("bench"))  # type: ignore[misc]
                deleted.time(lambda host=host: _rules(host, "-D"))  # type: ignore[misc]
            show(f"Networks, {firewall}", [made, appended, ratio(made, appended, 0.5)])
            show("", [removed, deleted, ratio(removed, deleted, 0.5)])


def _rules(host: Host, what: str) -> None:
    for number in range(RULES):
        source = f"203.0.113.{number}"
        host.run("iptables", what, "FORWARD", "--source", source, "--jump", "ACCEPT")
