"""In CI a test may be left out only for a reason that tests/skips.txt knows.

Else a tool that is missing turns a hundred tests green without a word.
"""

from __future__ import annotations

import os
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

REASONS = Path(__file__).resolve().parent.parent / "skips.txt"


class KnownSkips:
    """Collects the reasons of skipped tests; fails the session for those that are unknown."""

    def __init__(self, known: list[str]) -> None:
        self.known = known
        self.unknown: dict[str, str] = {}

    @pytest.hookimpl
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A test was run, or not."""
        self._note(report)

    @pytest.hookimpl
    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A whole file may be left out, too."""
        self._note(report)

    def _note(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if not report.skipped or hasattr(report, "wasxfail") or not report.longrepr:
            return
        _, _, reason = report.longrepr  # type: ignore[misc]  # of a skip: path, line, reason
        reason = str(reason).removeprefix("Skipped: ")
        if not any(fnmatchcase(reason, pattern) for pattern in self.known):
            self.unknown[report.nodeid] = reason

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Turn success into failure."""
        if self.unknown and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    @pytest.hookimpl
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say which tests, and why."""
        if self.unknown:
            terminalreporter.section("skipped for a reason that is not in tests/skips.txt")
        for test, reason in self.unknown.items():
            terminalreporter.line(f"{test}: {reason}")


def reasons(text: str) -> list[str]:
    """The patterns of a list of reasons: one a line, `*` for what varies, `#` comments."""
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def pytest_configure(config: pytest.Config) -> None:
    """In CI only: at a desk a missing tool should not stop anybody."""
    if os.environ.get("CI") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(KnownSkips(reasons(REASONS.read_text())), "known-skips")
