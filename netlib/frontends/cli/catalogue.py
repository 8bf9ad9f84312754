"""Every command: where it is, under which heading `net --help` lists it, and in which words.

Kept apart from the commands, so that `net --help` and `net ls` load none or one of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Entry(NamedTuple):
    """A command's heading, the module that has it, and its one-line help."""

    heading: str
    module: str
    help: str


NETWORKS, ENDPOINTS, SANDBOXES, CARE = "Networks", "Endpoints and ports", "Sandboxes", "The host"
CLUSTER = "Many hosts"

COMMANDS: Mapping[str, Entry] = {
    "create": Entry(NETWORKS, "create", "Make a network."),
    "ls": Entry(NETWORKS, "listing", "List networks."),
    "inspect": Entry(NETWORKS, "listing", "Show networks in full, as JSON."),
    "graph": Entry(NETWORKS, "graph", "Draw networks and who is on them."),
    "update": Entry(NETWORKS, "create", "Change a network while it is in use."),
    "rm": Entry(NETWORKS, "removal", "Remove networks."),
    "prune": Entry(NETWORKS, "removal", "Remove all networks that nobody is on."),
    "connect": Entry(ENDPOINTS, "connection", "Join a sandbox to a network."),
    "disconnect": Entry(ENDPOINTS, "connection", "Take a sandbox off a network."),
    "publish": Entry(ENDPOINTS, "publishing", "Publish more ports of a running sandbox."),
    "unpublish": Entry(ENDPOINTS, "publishing", "Take published ports back."),
    "port": Entry(ENDPOINTS, "publishing", "List the published ports of a sandbox."),
    "run": Entry(SANDBOXES, "processes", "Run a command as a sandbox with networks of its own."),
    "ps": Entry(SANDBOXES, "sandboxes", "List sandboxes."),
    "exec": Entry(SANDBOXES, "processes", "Run a command inside a sandbox."),
    "stop": Entry(SANDBOXES, "processes", "End the processes of sandboxes."),
    "env": Entry(SANDBOXES, "linking", "Print what links tell a sandbox, as variables."),
    "sandbox": Entry(SANDBOXES, "sandboxes", "Make, remove and list sandboxes without a process."),
    "cluster": Entry(CLUSTER, "cluster", "Make a cluster of hosts, join it, leave it."),
    "node": Entry(CLUSTER, "node", "List, change and remove the hosts of a cluster."),
    "check": Entry(CARE, "health", "List every difference between the host and the state."),
    "repair": Entry(CARE, "health", "Make the host equal the state again."),
    "gc": Entry(CARE, "health", "Remove what belongs to sandboxes that have ended."),
    "rules": Entry(CARE, "rules", "Show what the firewall is told, why, and what is missing."),
    "dns": Entry(CARE, "names", "Ask for names as a sandbox does, and see what is asked."),
    "host": Entry(CARE, "host", "Show and set what the whole host does with packets."),
    "driver": Entry(CARE, "drivers", "List the drivers and what they can do."),
    "daemon": Entry(CARE, "daemon", "Serve commands and runtimes from a warm process."),
    "events": Entry(CARE, "daemon", "Show what happens to networks and endpoints."),
    "cni": Entry(CARE, "cni", "Plug netlib into container runtimes."),
    "lab": Entry(CARE, "lab", "Play stories about networks, in hosts to throw away."),
    "completion": Entry(CARE, "completion", "Print the code that completes `net` in a shell."),
}
