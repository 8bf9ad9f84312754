"""The plugins that runtimes use today, `bridge` with `host-local`, called as runtimes do."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

FOLDERS = (Path("/usr/lib/cni"), Path("/opt/cni/bin"))


class Plugins:
    """Attaches a network namespace by running a plugin, as the CNI specification says."""

    def __init__(self, folder: Path, state: Path) -> None:
        self.folder = folder
        self._config = json.dumps({
            "cniVersion": "0.4.0", "name": "reference", "type": "bridge", "bridge": "reference0",
            "isGateway": True,
            "ipam": {
                "type": "host-local", "dataDir": str(state), "subnet": "198.18.0.0/16",
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        })  # fmt: skip

    def call(self, command: str, name: str) -> None:
        """ADD or DEL for a namespace of /run/netns."""
        environment = {
            "PATH": os.environ["PATH"], "CNI_COMMAND": command, "CNI_CONTAINERID": name,
            "CNI_NETNS": f"/run/netns/{name}", "CNI_IFNAME": "eth0", "CNI_PATH": str(self.folder),
        }  # fmt: skip
        subprocess.run(
            [self.folder / "bridge"], input=self._config, env=environment, text=True,
            capture_output=True, timeout=30, check=True,
        )  # fmt: skip


def find(state: Path) -> Plugins | None:
    """The plugins where they are installed (Debian: containernetworking-plugins)."""
    for folder in FOLDERS:
        if (folder / "bridge").exists():
            return Plugins(folder, state)
    return None
