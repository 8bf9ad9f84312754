"""Podman 4 attaches containers with our plugin, as its CNI networks."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.host import Host
from support.patience import eventually

from netlib import Net
from netlib.frontends.cni.installing import conflist, install

OWN_USERS = Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"]
pytestmark = [
    pytest.mark.kernel,
    pytest.mark.slow,
    pytest.mark.skipif(OWN_USERS, reason="runc needs the machine's own control groups"),
]

CONTAINERS = """
[network]
network_backend = "cni"
cni_plugin_dirs = ["{folder}/bin"]
network_config_dir = "{folder}/networks"
default_network = "front"
[containers]
pids_limit = 0
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
runtime = "runc"
"""
STORAGE = """
[storage]
driver = "vfs"
graphroot = "{folder}/graph"
runroot = "{folder}/run"
"""


class Podman:
    """Podman with folders of its own, a root file system with busybox, and two networks."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._folder = folder = host.state_dir / "podman"
        self._group = f"netlib-test-{host.netns.inode}"
        for name in ("bin", "proc", "sys", "dev", "etc", "tmp", "run"):
            (folder / "rootfs" / name).mkdir(parents=True)
        shutil.copy(str(shutil.which("busybox")), folder / "rootfs/bin")
        (folder / "containers.conf").write_text(CONTAINERS.format(folder=folder))
        (folder / "storage.conf").write_text(STORAGE.format(folder=folder))
        (folder / "networks").mkdir()
        install(folder / "bin", host.state_dir)
        with Net(host.state_dir) as net:
            for name, subnet in (("front", "198.51.100.0/24"), ("back", "203.0.113.0/24")):
                net.create(name, subnets=[subnet])
                text = json.dumps(conflist(name))
                (folder / "networks" / f"{name}.conflist").write_text(text)

    def __call__(self, *arguments: str) -> str:
        """What podman says."""
        configured = [f"CONTAINERS_CONF={self._folder}/containers.conf",
                      f"CONTAINERS_STORAGE_CONF={self._folder}/storage.conf",
                      f"TMPDIR={self._folder}"]  # fmt: skip
        done = self._host.run("env", *configured, "podman", *arguments, timeout=60)
        return str(done.stdout)

    def run(self, name: str, command: str, *options: str) -> str:
        """Run a shell's command in a container of busybox; what it says."""
        group = f"--cgroup-parent=/{self._group}"
        rootfs = self._folder / f"{name}-rootfs"
        shutil.copytree(self._folder / "rootfs", rootfs)
        shell = ["--rootfs", str(rootfs), "/bin/busybox", "sh", "-c", command]
        return self("run", "--name", name, group, *options, *shell)

    def end(self) -> None:
        """End all containers, and give their control groups back."""
        self("rm", "--all", "--force", "--time=0")

        def is_empty() -> bool:
            groups = list(Path("/sys/fs/cgroup").glob(f"*/{self._group}"))
            for group in [*groups, Path("/sys/fs/cgroup", self._group)]:
                for folder, _, _ in os.walk(group, topdown=False):
                    try:
                        os.rmdir(folder)
                    except OSError:
                        return False
            return True

        eventually(is_empty, 10)


@pytest.fixture
def podman(host: Host) -> Iterator[Podman]:
    """Podman, which leaves nothing."""
    found = Podman(host)
    yield found
    found.end()


@pytest.mark.parametrize("warm", [False, True], ids=["alone", "daemon"])
def test_podman_run_with_cni(
    host: Host, podman: Podman, request: pytest.FixtureRequest, warm: bool
) -> None:
    """Addresses, names and ports; a network taken away from a running container; nothing left."""
    if warm:
        request.getfixturevalue("daemon")
    outsider = host.outsider()
    assert podman("network", "ls", "--format", "{{.Name}} {{.Driver}}").split("\n")[:2] == [
        "back netlib", "front netlib"]  # fmt: skip
    serves = "echo -n web > /tmp/index.html; exec /bin/busybox httpd -f -p 80 -h /tmp"
    podman.run("web", serves, "-d", "-p", "8080:80", "--network", "front:alias=www,ip=198.51.100.9",
               "--network", "back")  # fmt: skip

    def page() -> str:
        """What an outsider gets from the published port."""
        asked = ("curl", "-s", "--max-time", "5", "http://192.0.2.1:8080/")
        return outsider.run(*asked, check=False).stdout

    eventually(lambda: page() == "web", 10)
    said = podman.run("asks", "/bin/busybox ip addr; /bin/busybox wget -qO- http://web/; "
                              "/bin/busybox wget -qO- http://www/", "--rm")  # fmt: skip
    assert "inet 198.51.100." in said
    assert said.endswith("webweb")
    with Net(host.state_dir) as net:
        assert net.check() == ()
        podman("network", "disconnect", "front", "web")
        (left,) = net.endpoints()
        assert net.inspect("back").network.id == left.network
        assert page() == "web"
        podman("rm", "--force", "--time=0", "web")
        assert net.endpoints() == ()
        assert net.sandboxes() == ()
        assert net.check() == ()
