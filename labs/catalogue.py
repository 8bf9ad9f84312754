"""The labs there are. A lab is a folder here with a README.md and a `story.py` that has `tell`."""

from __future__ import annotations

import difflib
import inspect
import typing
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

from netlib.errors import NoSuchLab
from netlib.values import dataclass

# In the order to read them, each with what `net lab ls` says of it.
TITLES: Mapping[str, str] = {
    "demo": "The main job: two networks, a published port, isolation, and no trace after.",
    "bridges": "The default bridge and networks of your own: names, links, isolation.",
    "publish": "A published port: the road of a packet before and after its address is changed.",
    "on-the-fly": "Networks come and go under a process, while its other connections live on.",
    "isolation": "Who reaches whom, and a network without a way out.",
    "forwarding": "The two switches that let packets through a host: sysctl and FORWARD.",
    "shared-stacks": "The networks host and none, and a sandbox that shares another one's stack.",
    "macvlan": "A sandbox with a MAC address of its own on the LAN, and a neighbour there.",
    "overlay": "Several hosts, one network: what crosses between them, and a host that is lost.",
    "crash": "A process that dies in the middle of connect, and the repair.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """An option of a lab: `--NAME VALUE`; of a number, `within` says from where to where."""

    name: str
    type: type
    default: Any
    help: str
    within: range | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lab:
    """One lab. `settings` are the keyword-only parameters of its `tell`.

    `needs` are programs that only this story uses, with Debian's packages, and `modules` packages
    of Python.
    """

    name: str
    title: str
    module: str
    tell: Callable[..., None]
    readme: str
    settings: tuple[Setting, ...]
    needs: Mapping[str, str]
    modules: tuple[str, ...]

    @property
    def introduction(self) -> str:
        """The README's first paragraph."""
        return self.readme.split("\n\n")[1].strip().replace("\n", " ")


def find(name: str) -> Lab:
    """The lab of this name. Raises NoSuchLab."""
    if name not in TITLES:
        near = difflib.get_close_matches(name, TITLES, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise NoSuchLab(f"there is no lab {name!r}", f"{hint}see: net lab ls")
    return load(name, TITLES[name], f"{__package__}.{name.replace('-', '_')}.story")


def load(name: str, title: str, module: str) -> Lab:
    """The lab whose story a module has; its README lies beside it."""
    story = import_module(module)
    assert story.__file__ is not None
    return Lab(
        name=name,
        title=title,
        module=module,
        tell=story.tell,
        readme=Path(story.__file__).with_name("README.md").read_text(encoding="utf-8"),
        settings=tuple(_settings(story.tell)),
        needs=getattr(story, "NEEDS", {}),
        modules=getattr(story, "MODULES", ()),
    )


def _settings(tell: Callable[..., None]) -> typing.Iterator[Setting]:
    """`hosts: Annotated[int, "How many hosts.", range(2, 10)] = 3` is `--hosts`, from 2 to 9."""
    hints = typing.get_type_hints(tell, include_extras=True)
    for parameter in inspect.signature(tell).parameters.values():
        if parameter.kind is not parameter.KEYWORD_ONLY:
            continue
        hint = hints[parameter.name]
        assert typing.get_origin(hint) is Annotated, f"{parameter.name} says nothing for --help"
        shape, text, *more = typing.get_args(hint)
        yield Setting(
            name=parameter.name,
            type=shape,
            default=parameter.default,
            help=text,
            within=more[0] if more else None,
        )
