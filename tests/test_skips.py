"""A test that is left out for an unknown reason fails the session, in CI only."""

from __future__ import annotations

import pytest
from support.skips import reasons

TESTS = """
import pytest

def test_fine(): pass

@pytest.mark.skip(reason="no moon in phase 3")
def test_left_out(): pass

@pytest.mark.xfail(reason="known to fail")
def test_known(): assert False
"""


@pytest.fixture
def session(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A session of its own with one skipped test."""
    monkeypatch.setenv("CI", "true")
    pytester.makepyfile(TESTS)
    return pytester


def run(session: pytest.Pytester, known: str) -> pytest.RunResult:
    session.makeconftest(f"""
        from support import skips
        def pytest_configure(config):
            config.pluginmanager.register(skips.KnownSkips(skips.reasons({known!r})))
    """)
    return session.runpytest_inprocess("-p", "no:known-skips", "-p", "no:cacheprovider")


def test_unknown_reason_fails(session: pytest.Pytester) -> None:
    """Everything passes, yet the exit status says no, and the summary says why."""
    result = run(session, "# nothing is known\n")

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*not in tests/skips.txt*", "*test_left_out: no moon in phase 3"])


def test_known_reason_passes(session: pytest.Pytester) -> None:
    """A reason that a pattern covers is fine."""
    assert run(session, "no moon in phase *\n").ret == pytest.ExitCode.OK


def test_reasons_have_comments() -> None:
    """Comments and empty lines are no reasons."""
    assert reasons("# why\n\n  a *\n") == ["a *"]
