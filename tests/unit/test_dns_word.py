"""Word of changes: who leaves it waits for nobody, and who hears it hears it once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from netlib.dns.word import Word, hear, leave


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file of a lock."""
    (tmp_path / "lock").touch()
    return tmp_path / "lock"


def test_word_is_heard_once_and_again_after_the_next_change(path: Path) -> None:
    """However many changes came in between."""
    word = Word(hear(path))
    assert word.is_new(), "who has just begun knows of nothing"
    assert not word.is_new()
    for _ in range(3):
        assert leave(path)
    assert word.is_new()
    assert not word.is_new()


def test_who_leaves_word_learns_that_nobody_hears_it(path: Path) -> None:
    """Then a keeper was killed, or there never was one."""
    assert not leave(path.parent / "elsewhere")
    assert not leave(path)
    hear(path)
    assert leave(path)


def test_a_keeper_that_ended_hears_nothing(path: Path) -> None:
    """However it ended; the file stays, and so does its server for a moment, which has it open."""
    of_server = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    ear = hear(path)
    word = Word(of_server)
    assert leave(path)
    os.close(ear)
    assert not leave(path)
    assert word.is_new()
    os.close(of_server)


def test_the_next_keeper_is_heard_by_its_own_server(path: Path) -> None:
    """The word that an earlier one's server heard last says nothing to it."""
    for _ in range(2):
        ear = hear(path)
        leave(path)
        assert Word(ear).is_new()
        os.close(ear)
