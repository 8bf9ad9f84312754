"""Our dataclasses are as good as the standard library's, whoever makes use of them."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
from collections.abc import Mapping
from typing import ClassVar

import pytest

from netlib import values
from netlib.model import Netns
from netlib.values import dataclass, field, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class _Base:
    kind: ClassVar[str] = "base"

    name: str
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Derived(_Base):
    size: int = 3
    secret: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class _Pair:
    first: int
    second: int = 2


@dataclass(slots=True)
class _Counter:
    count: int = 0


@dataclass(frozen=True)
class _Checked:
    number: int

    def __post_init__(self) -> None:
        if self.number < 0:
            raise ValueError("negative")

    def __repr__(self) -> str:
        return f"<{self.number}>"


def test_fields_are_inherited_and_have_their_defaults() -> None:
    """Each value has a mapping of its own."""
    value = _Derived(name="a")
    assert (value.name, value.size, value.tags) == ("a", 3, {})
    assert value.tags is not _Derived(name="b").tags
    assert _Base.kind == "base"


def test_what_is_missing_or_unknown_is_an_error_each_time() -> None:
    """Before and after the first value was made."""
    for _ in range(2):
        with pytest.raises(TypeError, match="name"):
            _Derived()  # type: ignore[call-arg]
        with pytest.raises(TypeError, match="colour"):
            _Derived(name="a", colour=1)  # type: ignore[call-arg]
        with pytest.raises(TypeError, match="positional"):
            _Derived("a")  # type: ignore[misc]
        _Derived(name="a")


def test_values_are_equal_by_their_fields_and_their_class() -> None:
    """And hash alike where they are frozen."""
    assert _Pair(1) == _Pair(1, 2)
    assert hash(_Pair(1)) == hash(_Pair(1, 2))
    assert _Pair(1) != _Pair(2)
    assert _Pair(1) != (1, 2)
    assert _Base(name="a") != _Derived(name="a")
    assert _Counter() == _Counter()
    with pytest.raises(TypeError, match="unhashable"):
        hash(_Counter())


def test_frozen_values_do_not_change() -> None:
    """Neither by setting nor by deleting; others do."""
    value = _Pair(1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        value.first = 2  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        del value.first
    with pytest.raises(AttributeError):
        object.__setattr__(value, "third", 3)
    counter = _Counter()
    counter.count += 1
    assert counter == _Counter(1)


def test_a_class_keeps_what_it_says_itself() -> None:
    """Its own representation, and its check of what it is given."""
    assert repr(_Checked(1)) == "<1>"
    with pytest.raises(ValueError, match="negative"):
        _Checked(-1)
    assert repr(_Derived(name="a", secret="s")) == "_Derived(name='a', tags={}, size=3)"


def test_replace_is_the_standard_librarys_too() -> None:
    """With ours and with theirs."""
    for change in (replace, dataclasses.replace):
        assert change(_Pair(1), second=5) == _Pair(1, 5)
        assert change(_Derived(name="a"), name="b") == _Derived(name="b")
        with pytest.raises(TypeError):
            change(_Pair(1), third=1)  # type: ignore[call-arg]


def test_the_standard_library_takes_them_for_its_own() -> None:
    """Fields, parameters, dictionaries, copies, pickles, signatures and patterns."""
    value = _Derived(name="a", tags={"x": "y"})
    assert dataclasses.is_dataclass(value)
    assert dataclasses.is_dataclass(_Derived)
    assert [f.name for f in dataclasses.fields(_Derived)] == ["name", "tags", "size", "secret"]
    assert [f.name for f in values.fields(_Derived)] == ["name", "tags", "size", "secret"]
    assert dataclasses.asdict(value) == {
        "name": "a", "tags": {"x": "y"}, "size": 3, "secret": ""
    }  # fmt: skip
    assert copy.copy(value) == copy.deepcopy(value) == value
    namespace = Netns(name="web", path="/run/netns/web", inode=1)
    assert pickle.loads(pickle.dumps(namespace)) == namespace
    assert str(inspect.signature(_Pair)) == "(first: 'int', second: 'int' = 2) -> None"
    match _Pair(1):
        case _Pair(first, second):
            assert (first, second) == (1, 2)


def test_a_dataclass_of_the_standard_librarys_may_go_on_from_one_of_ours() -> None:
    """As in the package of somebody who writes a driver."""

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Theirs(_Base):
        port: int = 80

    value = Theirs(name="a", port=81)
    assert (value.name, value.port, value.tags) == ("a", 81, {})
    assert dataclasses.replace(value, port=82).port == 82
    assert value == Theirs(name="a", port=81)
    assert value != Theirs(name="b", port=81)


def test_defining_one_compiles_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """That is what they are for."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("compiled")

    monkeypatch.setattr(values, "_init", refuse)

    @dataclass(frozen=True, slots=True)
    class Late:
        number: int

    with pytest.raises(AssertionError, match="compiled"):
        Late(1)
