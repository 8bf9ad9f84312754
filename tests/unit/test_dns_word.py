"""Word of changes: who leaves it waits for nobody, and who hears it hears it once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from netlib.dns.word import Word, hear, leave


@pytest.fixture
def lock(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    yield descriptor
    os.close(descriptor)


def test_word_is_heard_once_and_again_after_the_next_change(lock: int, tmp_path: Path) -> None:
    """However many changes came in between."""
    hear(lock)
    word = Word(lock)
    assert word.is_new(), "who has just begun knows of nothing"
    assert not word.is_new()
    for _ in range(3):
        assert leave(tmp_path / "lock")
    assert word.is_new()
    assert not word.is_new()


def test_who_leaves_word_learns_that_nobody_hears_it(lock: int, tmp_path: Path) -> None:
    """Then a keeper was killed, or there never was one."""
    assert not leave(tmp_path / "elsewhere")
    assert not leave(tmp_path / "lock")
    hear(lock)
    assert leave(tmp_path / "lock")


def test_a_keeper_that_ended_hears_nothing(tmp_path: Path) -> None:
    """Its lock goes with it, however it ends; the file stays."""
    path = tmp_path / "lock"
    keeper = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    hear(keeper)
    assert leave(path)
    os.close(keeper)
    assert not leave(path)


def test_the_next_keeper_is_heard_by_its_own_server(tmp_path: Path) -> None:
    """The word that an earlier one's server heard last says nothing to it."""
    path = tmp_path / "lock"
    for _ in range(2):
        keeper = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        hear(keeper)
        leave(path)
        assert Word(keeper).is_new()
        os.close(keeper)
