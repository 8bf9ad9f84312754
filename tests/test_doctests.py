"""Examples in docstrings are true."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from pathlib import Path

import pytest
from support.host import Host

import netlib


def modules_with_examples() -> list[str]:
    """Every module whose source has a prompt."""
    found = []
    for info in pkgutil.walk_packages(netlib.__path__, "netlib."):
        spec = info.module_finder.find_spec(info.name, None)  # type: ignore[call-arg]
        if spec is not None and spec.origin and ">>> " in Path(spec.origin).read_text():
            found.append(info.name)
    return found


@pytest.mark.parametrize("name", modules_with_examples())
def test_docstrings(name: str, host: Host) -> None:
    """Every `>>>` prints what stands below it."""
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)

    assert result.attempted
    assert not result.failed
