"""Every test runs in a throw-away host; in CI every skip needs a reason that is known."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from support.golden import Golden
from support.host import Host, new_host

from netlib import throwaway

# No deadlines: a busy machine is no counter-example. In CI the same examples every time.
hypothesis.settings.register_profile("here", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "here")

pytest_plugins = ["support.skips", "pytester"]

# A package of its own, with tests of its own: test_third_parties.py runs them.
collect_ignore = ["example_driver"]
ROOT = Path(__file__).resolve().parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of our own."""
    parser.addoption("--update-golden", action="store_true", help="rewrite tests/golden")


def pytest_configure(config: pytest.Config) -> None:
    """Start pytest over in a throw-away host, before anything is collected."""
    if throwaway.inside():
        if "PYTEST_XDIST_WORKER" in os.environ:
            throwaway.separate()
        return
    # pytest names its folders in /tmp after the user, and there every user is root.
    os.environ["LOGNAME"] = f"uid-{os.getuid()}"
    capture = config.pluginmanager.getplugin("capturemanager")
    if capture is not None:
        capture.stop_global_capturing()  # gives file descriptors 1 and 2 back
    try:
        throwaway.enter(keep=[ROOT, Path(sys.prefix)])
    except OSError as error:
        pytest.exit(f"tests need a throw-away host: {error}", returncode=throwaway.REFUSED)


@pytest.fixture
def host() -> Iterator[Host]:
    """A fresh network namespace as the host, which this test's own thread is in."""
    with new_host() as host:
        yield host


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Golden:
    """Golden texts: `golden.check("connect.txt", plan.text())`."""
    return Golden(update=request.config.getoption("--update-golden"))
