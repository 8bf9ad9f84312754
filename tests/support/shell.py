"""`net` as a user types it, in this process: on a host in memory, or on whatever Net is given."""

from __future__ import annotations

import contextlib
import io
import json
import shlex
from dataclasses import dataclass
from typing import Any

from netlib.frontends.cli.program import invoke
from netlib.frontends.cli.session import Session
from netlib.net import Net


@dataclass(frozen=True)
class Said:
    """How a command ended, and what it printed."""

    status: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """The lines on stdout."""
        return self.out.splitlines()

    @property
    def document(self) -> Any:
        """The JSON on stdout."""
        return json.loads(self.out)


@dataclass(frozen=True)
class Shell:
    """Calls `net` with a Net of its own; without one `net` opens what its options say."""

    net: Net | None = None

    def __call__(self, line: str, *more: str, status: int | None = 0) -> Said:
        """Run `net LINE`, with `more` as further words.

        The exit status must be `status` (None: any).
        """
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            ended = invoke([*shlex.split(line), *more], Session(given=self.net))
        said = Said(ended, out.getvalue(), err.getvalue())
        assert status in (None, ended), f"net {line} ended with {ended}:\n{said.out}{said.err}"
        return said
