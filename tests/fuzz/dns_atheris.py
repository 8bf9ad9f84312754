"""A long search for messages that the resolver can not take: see CONTRIBUTING.md.

Needs atheris, which is no dependency of ours. It starts from the corpus of known traps.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT.parent)]

with atheris.instrument_imports(include=["netlib.dns"]):
    from unit.test_dns_hostile import check, check_told, corpus, names_end


def one(data: bytes) -> None:
    """Whatever the bytes are, from a client or from another server, the answer is right or none."""
    check(data)
    names_end(data[1:], data[0] if data else 0)
    check_told(data[8:], int.from_bytes(data[:2]) | 0x8000, data[2:8].ljust(6, b"\0"))


def main() -> None:
    """Run until something is found, or as long as the arguments say (-max_total_time=3600)."""
    with tempfile.TemporaryDirectory() as folder:
        for number, (_, message) in enumerate(corpus()):
            (Path(folder) / str(number)).write_bytes(message)
        atheris.Setup([*sys.argv, folder, "-max_len=4096"], one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
