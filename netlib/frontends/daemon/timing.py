"""What each step of a request costs: the store's commits, the kernel's stages, and the rest."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from netlib.net import Net
from netlib.state import State

_KERNEL = ("do", "begin", "remove", "perform", "observe", "facts", "prefixes", "interfaces",
           "alive", "enter", "port_user")  # fmt: skip
_STORE = ("get", "range", "count", "commit", "revision")


class Timed:
    """Passes calls on, and notes how long each took, by thread."""

    def __init__(
        self, inner: Any, name: str, methods: tuple[str, ...], note: Callable[..., None]
    ) -> None:
        self._inner = inner
        for method in methods:
            setattr(self, method, self._timed(f"{name}.{method}", getattr(inner, method), note))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    @staticmethod
    def _timed(name: str, call: Callable[..., Any], note: Callable[..., None]) -> Any:
        def timed(*arguments: Any, **named: Any) -> Any:
            start = time.perf_counter()
            try:
                return call(*arguments, **named)
            finally:
                label = name
                if name in ("kernel.do", "kernel.remove"):
                    label += f" {arguments[0].layer.name.lower()}"
                note(label, (time.perf_counter() - start) * 1000)

        return timed


def trace(net: Net, log: Callable[[str], None]) -> None:
    """Have every operation tell its steps: how often, and how many milliseconds in all."""
    own = threading.local()

    def note(name: str, milliseconds: float) -> None:
        steps = own.__dict__.setdefault("steps", {})
        count, total = steps.get(name, (0, 0.0))
        steps[name] = (count + 1, total + milliseconds)

    engine = net.engine
    engine.state = State(Timed(engine.state.store, "store", _STORE, note))
    engine.kernel = Timed(engine.kernel, "kernel", _KERNEL, note)
    told = engine.committed

    def committed(*arguments: Any) -> None:
        start = time.perf_counter()
        if told is not None:
            told(*arguments)
        note("files and names", (time.perf_counter() - start) * 1000)

    engine.committed = committed
    run = engine.run

    def timed(what: str, work: Callable[[], Any]) -> Any:
        own.__dict__["steps"] = {}
        start = time.perf_counter()
        try:
            return work()
        finally:
            whole = (time.perf_counter() - start) * 1000
            steps = own.__dict__["steps"]
            rest = whole - sum(total for _, total in steps.values())
            parts = [f"{name} x{count} {total:.2f}" for name, (count, total) in steps.items()]
            log(f"timing{what}: {whole:.2f} ms: {'; '.join(parts)}; rest {rest:.2f}")

    def beside(
        do: Callable[[Any, Callable[[Sequence[Any]], Any]], Any],
    ) -> Callable[[Any, Callable[[Sequence[Any]], Any]], Any]:
        def timed_do(thing: Any, work: Callable[[Sequence[Any]], Any]) -> Any:
            def timed_work(things: Sequence[Any]) -> Any:
                if len(things) == 1:  # which is run, and so timed
                    return work(things)
                return timed(f" of {len(things)} at once", partial(work, things))

            return do(thing, timed_work)

        return timed_do

    engine.run = lambda prepare: timed("", partial(run, prepare))  # type: ignore[method-assign]
    for together in (engine.gathered.built, engine.gathered.removed):
        together.do = beside(together.do)  # type: ignore[assignment,method-assign]
