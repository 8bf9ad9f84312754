"""Sandboxes in the background: a supervisor of its own waits for the command and cleans up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from netlib.codec import from_json, to_json
from netlib.dns.spawn import python
from netlib.errors import (
    KernelError,
    NetError,
    NotPermitted,
    StoreError,
    from_document,
    to_document,
)
from netlib.net import Net
from netlib.run.request import RunRequest


def log_folder(state_dir: Path) -> Path:
    """Where the outputs of commands in the background are kept until `net gc`."""
    return state_dir / "log"


def start(net: Net, request: RunRequest) -> str:
    """Run a command as a sandbox in the background; its name, once the command runs.

    Its output goes to a file in `log_folder`. Raises what `run` raises up to then.
    """
    document = {
        "request": to_json(request),
        "state_dir": str(net.state_dir.absolute()),
        "firewall": net.firewall,
    }
    # A program of its own, since a process with threads can't go on as a fork of itself.
    with subprocess.Popen(
        python("netlib.run.background"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        said, complaint = process.communicate(json.dumps(document).encode())
    if not said:
        reason = complaint.decode(errors="replace").strip().rpartition("\n")[2]
        raise KernelError(f"the supervisor of {request.name} died: {reason or 'no reason given'}")
    answer: dict[str, Any] = json.loads(said)
    if "error" in answer:
        raise from_document(answer["error"])
    net.engine.tell(answer["warnings"])
    return str(answer["name"])


def collect_logs(net: Net) -> None:
    """Remove the outputs of sandboxes that are no more."""
    folder = log_folder(net.state_dir)
    if folder.is_dir():
        known = {f"{box.name}.log" for box in net.sandboxes()}
        for path in folder.iterdir():
            if path.name not in known:
                path.unlink(missing_ok=True)


def main() -> NoReturn:
    """The supervisor: reads what to do from stdin, answers once on stdout, stays."""
    document = json.load(sys.stdin)
    # Twice forked, so that whoever asked has no child to reap; in a session of its own, so
    # that no terminal's signals come here.
    if os.fork():
        os._exit(0)
    answered = False
    warnings: list[str] = []  # of what was asked for and is needless, for who asked

    def answer(result: dict[str, object]) -> None:
        nonlocal answered
        answered = True
        os.write(1, json.dumps(result).encode())
        # The caller waits for the end of both.
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)

    try:
        status = _run(
            document, warnings.append, lambda name: answer({"name": name, "warnings": warnings})
        )
    except NetError as error:
        if not answered:
            answer({"error": to_document(error)})
        status = error.exit_status
    except Exception as error:
        if not answered:
            answer({"error": to_document(KernelError(f"{type(error).__name__}: {error}"))})
        raise
    if not answered:
        answer({"error": to_document(KernelError("it was asked to end before it could start"))})
    sys.exit(status)


def _run(
    document: dict[str, Any], needless: Callable[[str], None], started: Callable[[str], None]
) -> int:
    from netlib.run.sandbox import run

    request = from_json(RunRequest, document["request"])
    with Net(document["state_dir"], firewall=document["firewall"], warn=needless) as net:
        path = log_folder(net.state_dir) / f"{request.name}.log"
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            output = path.open("wb")
        except PermissionError as error:
            raise NotPermitted(
                f"{path} can't be written: {error.strerror}", "run it as root"
            ) from error
        except OSError as error:
            raise StoreError(f"{path} can't be written: {error.strerror}") from error

        def warn(text: str) -> None:
            os.write(output.fileno(), f"net: {text}\n".encode())

        with output:
            return run(net, request, output=output, started=started, warn=warn)
