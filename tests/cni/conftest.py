"""A runtime that calls the plugin in this process, or through a daemon."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from support.host import Host
from support.libcni import Runtime

from netlib import Net
from netlib.frontends.cni import answer

SUBNET = "198.51.100.0/24"
Runtimes = Callable[..., Runtime]

CAPABILITIES = ("portMappings", "ips", "mac", "dns", "aliases", "ipRanges", "bandwidth")


def conflist(*plugins: Mapping[str, Any], version: str = "1.1.0", name: str = "front") -> Any:
    """A conflist of these plugins; those without a type are ours with all capabilities."""
    ours = {"type": "netlib", "capabilities": dict.fromkeys(CAPABILITIES, True)}
    return {
        "cniVersion": version,
        "name": name,
        "plugins": [p if "type" in p else {**ours, **p} for p in plugins or [{"subnet": SUBNET}]],
    }


@pytest.fixture
def net(host: Host) -> Iterator[Net]:
    """The library on an empty host."""
    with Net(host.state_dir) as net:
        yield net


@pytest.fixture
def runtime(host: Host, net: Net) -> Runtimes:
    """Makes runtimes: `runtime({"subnet": "198.51.100.0/24"})`."""

    def run(kind: str, environment: Mapping[str, str], stdin: bytes) -> tuple[str, int]:
        if kind == "netlib":
            said = answer(lambda: net, environment, stdin)
            assert not said.log, said.log
            return said.stdout, said.status
        program = os.path.join(environment["CNI_PATH"], kind)
        done = subprocess.run([program], input=stdin, env={**os.environ, **environment},
                              capture_output=True, timeout=20, check=False)  # fmt: skip
        return done.stdout.decode(), done.returncode

    def make(*plugins: Mapping[str, Any], **options: str) -> Runtime:
        return Runtime(conflist(*plugins, **options), run)

    return make
