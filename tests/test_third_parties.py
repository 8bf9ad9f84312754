"""Drivers of others: installed beside netlib they work in every verb; broken ones harm nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
from support.host import Host
from support.patience import eventually

from netlib.frontends.daemon.messages import SOCKET

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = Path(__file__).resolve().parent / "example_driver"
TARGET = "target"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the example package was installed into by pip."""
    pytest.importorskip("setuptools", minversion="77")
    folder = tmp_path_factory.mktemp("third")
    source = shutil.copytree(EXAMPLE, folder / "source")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation",
         "--no-index", "--disable-pip-version-check", "--target", folder / TARGET, source],
        check=True, timeout=60,
    )  # fmt: skip
    return folder / TARGET


def environment(installed: Path) -> dict[str, str]:
    """Ours and the example's on Python's path."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(installed), str(ROOT)])}


def net(host: Host, installed: Path, *words: str, status: int = 0) -> str:
    """What `net WORDS` prints with what is installed."""
    done = subprocess.run(
        [sys.executable, "-m", "netlib", "--state-dir", str(host.state_dir), *words],
        env=environment(installed), capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == status, f"net {' '.join(words)}:\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def entry(installed: Path, folder: Path, name: str, place: str) -> Path:
    """A folder with the same, and one more entry point."""
    shutil.copytree(installed, folder)
    information = folder / f"{name}-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(f"[netlib.drivers]\n{name} = {place}\n")
    return folder


@contextmanager
def daemon(host: Host, installed: Path) -> Iterator[None]:
    """A daemon that knows what is installed, until the end."""
    process = host.popen(
        sys.executable, "-m", "netlib", "--state-dir", str(host.state_dir), "daemon",
        env=environment(installed),
    )  # fmt: skip
    try:
        eventually((host.state_dir / SOCKET).exists, 20)
        yield
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()


@pytest.mark.kernel
@pytest.mark.parametrize("road", ["here", "daemon"])
def test_a_driver_that_is_installed_works_in_every_verb(
    host: Host, installed: Path, road: str
) -> None:
    """It is listed, and its networks are made, joined, changed, checked, mended and removed."""
    with daemon(host, installed) if road == "daemon" else nullcontext():
        every_verb(host, installed, mended=road == "daemon")
    assert not host.leftovers()


def every_verb(host: Host, installed: Path, *, mended: bool) -> None:
    """The life of a network of the example driver's; `mended`: a daemon puts back what goes."""
    host.sandbox("web")
    listed = json.loads(net(host, installed, "driver", "ls", "--json"))["drivers"]
    assert "segment" in [driver["name"] for driver in listed]
    assert "ip link add nl-" in net(host, installed, "create", "--dry-run", "-d", "segment", "lan")
    net(host, installed, "create", "-d", "segment", "-o", "mtu=1400", "lan")
    net(host, installed, "connect", "lan", "netns:web")
    assert "mtu 1400" in host.run("ip", "-n", "web", "link", "show", "eth0").stdout
    assert "nothing" in net(host, installed, "publish", "netns:web", "80:80", status=2)
    net(host, installed, "update", "-o", "mtu=1300", "lan")
    net(host, installed, "check")
    bridge = json.loads(net(host, installed, "inspect", "lan"))[0]["id"][:12]
    host.run("ip", "link", "del", f"nl-{bridge}")
    if mended:
        eventually(lambda: not host.run("ip", "link", "show", f"nl-{bridge}", check=False).stderr)
    else:
        net(host, installed, "check", status=1)
    net(host, installed, "repair")
    net(host, installed, "check")
    assert "segment" in net(host, installed, "ls")
    net(host, installed, "disconnect", "lan", "netns:web")
    net(host, installed, "rm", "lan")


@pytest.mark.kernel
def test_what_a_driver_made_can_be_removed_after_it_was_uninstalled(
    host: Host, installed: Path, tmp_path: Path
) -> None:
    """Its networks are listed and inspected, and all that they are is written down."""
    host.sandbox("web")
    net(host, installed, "create", "-d", "segment", "lan")
    net(host, installed, "connect", "lan", "netns:web")
    assert "segment" in net(host, tmp_path, "ls")
    assert "netns:web" in net(host, tmp_path, "inspect", "lan")
    net(host, tmp_path, "check")
    said = net(host, tmp_path, "update", "-o", "mtu=1300", "lan", status=3)
    assert "network lan is of driver 'segment'" in said
    assert "net rm -f lan" in said
    net(host, tmp_path, "rm", "-f", "lan")
    assert not host.leftovers()


@pytest.mark.kernel
def test_who_is_on_a_network_without_its_driver_is_served_on_the_others(
    host: Host, installed: Path, tmp_path: Path
) -> None:
    """It is entered, publishes ports on another network, and leaves that."""
    folder = entry(installed, tmp_path / "pooled", "pooled", "netlib_pooled:Pooled")
    (folder / "netlib_pooled.py").write_text(
        "from netlib.values import replace\n"
        "from netlib_segment import Segment\n"
        "class Pooled(Segment):\n"
        "    capabilities = replace(\n"
        "        Segment.capabilities, addressing='pool', gateway_on_host=True)\n"
    )
    net(host, folder, "create", "-d", "pooled", "lan")
    net(host, folder, "create", "--subnet", "198.51.100.0/24", "back")
    net(host, folder, "sandbox", "create", "web")
    for network in ("back", "lan"):
        net(host, folder, "connect", network, "web")
    assert "198.51.100.2" in net(host, installed, "exec", "web", "--", "ip", "-br", "addr")
    net(host, installed, "publish", "web", "8080:80")
    net(host, installed, "disconnect", "back", "web")
    net(host, installed, "check")
    assert "net rm -f lan" in net(host, installed, "connect", "lan", "web", status=3)
    net(host, installed, "rm", "-f", "lan", "back")
    net(host, installed, "sandbox", "rm", "web")


@pytest.mark.kernel
def test_what_a_daemon_made_by_a_driver_that_is_gone_since_is_no_failure(
    host: Host, installed: Path, tmp_path: Path
) -> None:
    """It has the driver still; who asked says what was made, as it was."""
    with daemon(host, installed):
        net(host, tmp_path, "create", "-d", "segment", "lan")
    net(host, tmp_path, "rm", "lan")


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("module", "says"),
    [
        ("", "ModuleNotFoundError"),
        ("class Driver: pass", "lacks capabilities"),
        ("raise RuntimeError('boom')", "boom"),
        ("from netlib_segment import Segment\nclass Driver(Segment):\n"
         "    def network_wiring(self, *_): return 1 / 0", "failed in network_wiring"),
        ("from netlib_segment import Segment\nclass Driver(Segment):\n"
         "    def network_wiring(self, *_): return None", "not Wiring"),
        ("raise SystemExit(0)", "SystemExit"),
        ("from netlib_segment import Segment\nclass Driver(Segment):\n"
         "    def network_wiring(self, *_): raise SystemExit", "failed in network_wiring"),
    ],
    ids=["absent", "incomplete", "raising", "failing", "wrong", "leaving", "leaving-later"],
)  # fmt: skip
def test_a_broken_driver_is_reported_and_harms_nothing(
    host: Host, installed: Path, tmp_path: Path, module: str, says: str
) -> None:
    """Only what needs it fails, with its name; all else goes on."""
    folder = entry(installed, tmp_path / "broken", "broken", "broken_driver:Driver")
    if module:
        (folder / "broken_driver.py").write_text(module)
    listing = net(host, folder, "driver", "ls")
    assert "broken" in listing
    said = net(host, folder, "create", "-d", "broken", "lan", status=1)
    assert says in said
    assert "broken" in said
    assert "Traceback" not in said
    net(host, folder, "create", "-d", "segment", "lan")
    net(host, folder, "rm", "lan")
    assert not host.leftovers()


@pytest.mark.kernel
def test_a_name_that_is_taken_is_reported_and_netlibs_own_driver_is_used(
    host: Host, installed: Path, tmp_path: Path
) -> None:
    """Nobody becomes the default driver by being installed."""
    folder = entry(installed, tmp_path / "shadow", "ptp", "netlib_segment:Segment")

    assert "(netlib_segment:Segment) is not used" in net(host, folder, "driver", "ls")
    listed = json.loads(net(host, folder, "driver", "ls", "--json"))["drivers"]
    assert [one.get("addressing") for one in listed if one["name"] == "ptp"] == ["pool", None]


@pytest.mark.kernel
def test_two_drivers_of_one_name_are_both_refused(
    host: Host, installed: Path, tmp_path: Path
) -> None:
    """Which one is used would depend on where they lie."""
    folder = entry(installed, tmp_path / "first", "twin", "netlib_segment:Segment")
    (folder / "twin-1.0.dist-info").rename(folder / "one-1.0.dist-info")
    both = entry(folder, tmp_path / "both", "twin", "netlib_other:Segment")
    (both / "netlib_other.py").write_text("from netlib_segment import Segment")
    (both / "one-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: one\n")

    said = net(host, both, "create", "-d", "twin", "lan", status=1)
    assert "2 packages bring a driver 'twin'" in said
    assert "2 packages bring a driver 'twin'" in net(host, both, "driver", "ls")


def test_authors_run_the_contract_as_their_own_tests(installed: Path, tmp_path: Path) -> None:
    """The example's tests pass where netlib and it are installed, with nothing of this folder."""
    shutil.copytree(EXAMPLE / "tests", tmp_path / "tests")
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", tmp_path / "tests"],
        cwd=tmp_path, env=environment(installed), capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "test_nothing_is_left" not in done.stdout
    assert " passed" in done.stdout


@pytest.mark.parametrize(
    ("broken", "found"),
    [
        ("replace(noun, owner='')", "test_devices_carry_the_mark_of_their_owner"),
        ("replace(noun, name='br0')", "test_a_sandbox_can_be_on_two_networks"),
    ],
    ids=["unmarked", "fixed"],
)
def test_the_contract_finds_a_driver_that_breaks_it(
    installed: Path, tmp_path: Path, broken: str, found: str
) -> None:
    """A device without its owner's mark would be lost after a crash; one name is one network's."""
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_it.py").write_text(
        "import pytest\n"
        "from dataclasses import replace\n"
        "from netlib.testing import DriverContract\n"
        "from netlib.wiring import Link, Wiring\n"
        "from netlib_segment import Segment\n"
        "class Broken(Segment):\n"
        "    def network_wiring(self, network, host):\n"
        "        nouns = super().network_wiring(network, host)\n"
        "        return Wiring(\n"
        f"            {broken} if isinstance(noun, Link) else noun for noun in nouns)\n"
        "class TestBroken(DriverContract):\n"
        "    @pytest.fixture\n"
        "    def driver(self):\n"
        "        return Broken()\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", tmp_path],
        cwd=tmp_path, env=environment(installed), capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert found in done.stdout
