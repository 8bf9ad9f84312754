"""Every test runs in a throw-away host; skips need a reason that is known."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from netlib import throwaway

ROOT = Path(__file__).resolve().parent.parent


def pytest_configure(config: pytest.Config) -> None:
    """Start pytest over in a throw-away host, before anything is collected."""
    if throwaway.inside():
        return
    capture = config.pluginmanager.getplugin("capturemanager")
    if capture is not None:
        capture.stop_global_capturing()  # gives file descriptors 1 and 2 back
    throwaway.enter(keep=[ROOT, Path(sys.prefix)])


@pytest.fixture
def host() -> Iterator[object]:
    """A fresh network namespace as the host, which this test's own thread is in."""
    from support.host import new_host

    with new_host() as host:
        yield host
