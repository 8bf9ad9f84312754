"""The reference CNI plugins, `bridge` with `host-local`, called as a runtime calls them."""

from __future__ import annotations

import json
import os
from pathlib import Path

from benchmarks.place import Place

# Where Debian's containernetworking-plugins are, and where most others put theirs.
_FOLDERS = (Path("/usr/lib/cni"), Path("/opt/cni/bin"))


class BridgePlugin:
    """One network of theirs."""

    def __init__(self, folder: Path, host: Place) -> None:
        self._folder = folder
        self._host = host
        self._config = json.dumps(
            {
                "cniVersion": "0.4.0",
                "name": "theirs",
                "type": "bridge",
                "bridge": "theirs0",
                "isGateway": True,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": "198.51.100.0/24"}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                    "dataDir": "/run/theirs",
                },
            }
        )

    def add(self, container: str, netns: str) -> None:
        """ADD."""
        self._call("ADD", container, netns)

    def delete(self, container: str, netns: str) -> None:
        """DEL."""
        self._call("DEL", container, netns)

    def _call(self, command: str, container: str, netns: str) -> None:
        environment = {
            **os.environ,
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": container,
            "CNI_NETNS": netns,
            "CNI_IFNAME": "eth0",
            "CNI_PATH": str(self._folder),
        }
        self._host.run(str(self._folder / "bridge"), stdin=self._config, env=environment)


def find(host: Place) -> BridgePlugin | None:
    """The reference plugins, where they are installed."""
    for folder in _FOLDERS:
        if (folder / "bridge").exists() and (folder / "host-local").exists():
            return BridgePlugin(folder, host)
    return None
