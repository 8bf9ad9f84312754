"""containerd attaches containers with our plugin: a bundle of busybox, run by runc."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from support.host import Host
from support.patience import eventually

from netlib import Net
from netlib.frontends.cni.installing import install

ROOT = Path(__file__).resolve().parents[2]
OWN_USERS = Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"]
# A machine that is itself a container may see a tree of control groups without controllers.
CONTROLLERS = Path("/sys/fs/cgroup/cgroup.controllers")
LACKS_CPU = CONTROLLERS.exists() and "cpu" not in CONTROLLERS.read_text().split()
pytestmark = [
    pytest.mark.kernel,
    pytest.mark.slow,
    pytest.mark.skipif(
        OWN_USERS or LACKS_CPU, reason="runc needs the machine's own control groups"
    ),
]

CONFIG = """
version = 2
root = "{folder}/root"
state = "{folder}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.overlayfs",
  "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs"]
[grpc]
address = "{folder}/containerd.sock"
"""
# What it does to its mounts stays its own, and /opt is where it looks for plugins.
SCRIPT = """
mount -t tmpfs none /opt
mkdir -p /opt/cni /etc/cni/net.d
ln -s {folder}/bin /opt/cni/bin
cp {folder}/conflist /etc/cni/net.d/10-netlib.conflist
exec "$@"
"""


@pytest.mark.parametrize("warm", [False, True], ids=["alone", "daemon"])
def test_ctr_run_with_cni(host: Host, request: pytest.FixtureRequest, warm: bool) -> None:
    """`ctr run --cni`: an address inside while it runs, and nothing is left when it has ended."""
    if warm:
        request.getfixturevalue("daemon")
    host.outsider()
    folder = host.state_dir / "containerd"
    bundle = folder / "bundle"
    for name in ("bin", "proc", "sys", "dev", "etc", "tmp"):
        (bundle / name).mkdir(parents=True)
    busybox = shutil.which("busybox")
    assert busybox is not None
    shutil.copy(busybox, bundle / "bin")
    (folder / "config.toml").write_text(CONFIG.format(folder=folder))
    plugin = {"type": "netlib", "subnet": "198.51.100.0/24"}
    conflist = {"cniVersion": "1.0.0", "name": "front", "plugins": [plugin]}
    (folder / "conflist").write_text(json.dumps(conflist))
    install(folder / "bin", host.state_dir)

    def inside(*argv: str) -> list[str]:
        script = SCRIPT.format(folder=folder)
        return ["unshare", "--mount", "sh", "-ec", script, "sh", *argv]

    daemon = host.popen(*inside("containerd", "-c", str(folder / "config.toml")))
    try:
        eventually((folder / "containerd.sock").exists, 20)
        ctr = ["ctr", "--address", str(folder / "containerd.sock")]
        shell = "/bin/busybox ip addr; /bin/busybox ping -c 1 -W 5 192.0.2.100"
        run = [*ctr, "run", "--rm", "--rootfs", "--cni", str(bundle), "web"]
        said = host.run(*inside(*run, "/bin/busybox", "sh", "-c", shell), timeout=40).stdout
        assert "inet 198.51.100.2/24" in said
        assert "1 packets received" in said
        with Net(host.state_dir) as net:
            assert net.endpoints() == ()
            assert net.sandboxes() == ()
            assert net.check() == ()
    finally:
        daemon.terminate()
        try:
            daemon.wait(10)
        except subprocess.TimeoutExpired:
            daemon.kill()


def test_set_up_installs_what_this_needs() -> None:
    """In CI no runtime is left out for want of a program."""
    wanted = (ROOT / "requirements" / "debian.txt").read_text()
    for program in ("containerd", "runc", "busybox", "podman"):
        assert program in wanted
        assert os.environ.get("CI") is None or shutil.which(program)
