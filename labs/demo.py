"""The main story on real packets: two networks, a published port, isolation, and no trace after.

Run it with `make demo`. It plays in a throw-away host: a network namespace of its own, so
the machine it runs on is never touched, and it needs no root where user namespaces are
allowed. What it prints after `$` are the commands that a user would type.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from netlib import throwaway

PAGE = "Hello from web!"
HOST, OUTSIDER = "192.0.2.1", "192.0.2.100"
NET = [sys.executable, "-m", "netlib"]


class Story:
    """Runs what a user would type, shows it, and insists on what it should say."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started = time.monotonic()

    def tell(self, text: str) -> None:
        """A sentence of the story."""
        print(f"\n{text}", flush=True)

    def type(self, line: str, *, succeeds: bool = True, place: str = "") -> str:
        """Run a command line as a user types it; `place`: in this network namespace."""
        print(f"  {'$' if not place else place + ' $'} {line}", flush=True)
        words = shlex.split(line)
        argv = [*NET, *words[1:]] if words[0] == "net" else words
        if place:
            argv = ["ip", "netns", "exec", place, *argv]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
        said = (done.stdout + done.stderr).rstrip()
        for shown in said.splitlines():
            print(f"    {shown}", flush=True)
        if succeeds != (done.returncode == 0):
            wanted = "should have worked" if succeeds else "should have failed"
            sys.exit(f"demo: this {wanted}, but its exit status is {done.returncode}: {line}")
        return said

    def expect(self, *, fact: bool, otherwise: str) -> None:
        """Stop the story where it is not true."""
        if not fact:
            sys.exit(f"demo: {otherwise}")


def sh(*argv: str) -> None:
    """A command of the scenery, not of the story."""
    subprocess.run(argv, check=True, timeout=30)


def scenery(folder: Path) -> None:
    """A machine outside, at the other end of the host's eth0, and a page to serve."""
    sh("ip", "netns", "add", "outside")
    sh("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", "outside")
    sh("ip", "addr", "add", f"{HOST}/24", "dev", "eth0")
    sh("ip", "link", "set", "eth0", "up")
    sh("ip", "route", "add", "default", "via", OUTSIDER)
    outside = ("ip", "-n", "outside")
    sh(*outside, "addr", "add", f"{OUTSIDER}/24", "dev", "eth0")
    sh(*outside, "link", "set", "eth0", "up")
    (folder / "index.html").write_text(PAGE + "\n")


@contextlib.contextmanager
def stage() -> Iterator[Path]:
    """The scenery, and its end."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["NETLIB_STATE_DIR"] = str(folder / "state")
        scenery(folder)
        try:
            yield folder
        finally:
            # The uplink's other end goes with its namespace, and takes the uplink along.
            sh("ip", "netns", "del", "outside")


def fetch(address: str) -> str:
    """The command that fetches a page, without names or proxies."""
    return f"curl -sS --max-time 3 http://{address}/"


def address_of(story: Story, sandbox: str, network: str) -> str:
    """A sandbox's IPv4 address on a network, as `net inspect` tells it."""
    done = subprocess.run(
        [*NET, "inspect", network], capture_output=True, text=True, timeout=30, check=True
    )
    for endpoint in json.loads(done.stdout)[0]["endpoints"]:
        if endpoint["sandbox"] == sandbox:
            return str(endpoint["addresses"][0]).partition("/")[0]
    sys.exit(f"demo: {sandbox} is not on {network}")


def tell(story: Story) -> None:
    """The story itself."""
    wait = "busybox sh -c 'while true; do sleep 1; done'"
    story.tell("Two networks. Who is on the same one can talk; the two are kept apart.")
    story.type("net create front")
    story.type("net create back")
    story.type("net ls")

    story.tell("A web server, reached from outside at port 8080, and a client on each network.")
    serve = f"busybox httpd -f -p 80 -h {story.folder}"
    story.type(f"net run -d --name web --network front -p 8080:80 -- {serve}")
    story.type(f"net run -d --name friend --network front -- {wait}")
    story.type(f"net run -d --name stranger --network back -- {wait}")
    story.type("net ps")

    web = address_of(story, "web", "front")
    story.tell("From a machine outside, by the host's address and the published port:")
    seen = story.type(fetch(f"{HOST}:8080"), place="outside")
    story.expect(fact=PAGE in seen, otherwise="the page is not the page")
    story.tell("From a peer on the same network, by its name:")
    story.type(f"net exec friend -- {fetch('web')}")
    story.tell("From the other network the sandbox itself can't be reached ...")
    story.type(f"net exec stranger -- {fetch(web)}", succeeds=False)
    story.tell("... but what it publishes can, like from anywhere:")
    story.type(f"net exec stranger -- {fetch(f'{HOST}:8080')}")

    story.tell("Networks come and go under a running sandbox.")
    story.type("net disconnect front web")
    story.type(fetch(f"{HOST}:8080"), place="outside", succeeds=False)
    story.type("net connect front web -p 8080:80")
    story.type(fetch(f"{HOST}:8080"), place="outside")

    story.tell("Everything asked for is there, and nothing else:")
    story.type("net check")

    story.tell("Away with it all.")
    story.type("net stop web friend stranger")
    story.type("net rm front back")
    story.type("net ps")


def residue(story: Story) -> None:
    """What is left: the firewall's base and forwarding, which others may rely on by now."""
    story.tell("What is left on the host is what `net host` names, ready for the next network:")
    story.type("net host status")
    links = subprocess.run(
        ["ip", "-o", "link"], capture_output=True, text=True, timeout=30, check=True
    ).stdout
    names = {line.split(": ")[1].partition("@")[0] for line in links.splitlines()}
    story.expect(fact=names == {"lo", "eth0"}, otherwise=f"devices are left: {sorted(names)}")
    print("    devices: " + " ".join(sorted(names)), flush=True)


def main() -> None:
    """Enter a throw-away host and play."""
    throwaway.enter()
    with stage() as folder:
        story = Story(folder)
        tell(story)
        residue(story)
        print(f"\nDone in {time.monotonic() - story.started:.1f} seconds.")


if __name__ == "__main__":
    main()
