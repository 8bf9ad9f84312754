"""Writes the pages of reference that are made of the code, so that they can not be wrong.

`python tools/docs.py` (or `make docs`) rewrites them; tests/test_docs.py fails when they are
not as this would write them.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from netlib import errors
from netlib.driver import Capabilities, Driver, Option
from netlib.registry import BUILT_IN, Registry

ROOT = Path(__file__).resolve().parent.parent


def pages() -> dict[str, str]:
    """The text of every generated page, by its path in the repository."""
    made = {"docs/errors.md": errors_page(), "docs/drivers.md": drivers_page()}
    if find_spec("netlib.frontends.cli"):
        made["docs/cli.md"] = commands_page()
    return made


# -- errors -------------------------------------------------------------------------------------


def error_classes() -> list[type[errors.NetError]]:
    """Every error class, as they stand in the file."""
    found = [
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, errors.NetError)
    ]
    return sorted(found, key=lambda shape: inspect.getsourcelines(shape)[1])


def errors_page() -> str:
    """A table of all errors."""
    rows = [
        [
            f"{'&nbsp;&nbsp;' * (len(shape.__mro__) - 4)}`{shape.__name__}`",
            code_of(shape),
            shape.exit_status,
            shape.cni_code,
            "yes" if shape.retryable else "",
            first_line(shape),
        ]
        for shape in error_classes()
    ]
    head = ["class", "code", "exit status", "CNI code", "retry", "when"]
    return page(
        "Errors",
        "Every error of netlib is a `NetError`: a message (what happened, to what), a hint (what",
        "to do about it), and the following, fixed by its class, so that no program has to read a",
        'message. `code` is what `--json` prints: `{"error": {"code", "message", "hint"}}`.',
        "`retry`: the same call may succeed later. An error that is indented is also one of the",
        "kind above it.",
        "",
        *table(head, rows),
    )


def code_of(shape: type[errors.NetError]) -> str:
    """The code of an error class, as its instances say it."""
    if "code" in vars(shape) and shape is not errors.NetError:
        return "that of its cause"
    bare: Any = shape.__new__(shape)
    return f"`{bare.code}`"


# -- drivers ------------------------------------------------------------------------------------


def drivers_page() -> str:
    """Options and abilities of the drivers that ship with netlib."""
    registry = Registry()
    lines: list[str] = []
    for name in sorted(BUILT_IN):
        lines += driver_section(name, registry.get(name))
    return page(
        "Drivers",
        "A driver is a kind of network: `net create -d DRIVER`. Others can be added, see",
        "[CONTRIBUTING.md](../CONTRIBUTING.md). Options are given as `-o KEY=VALUE`; the names",
        "that other tools have for them are understood, too.",
        *lines,
    )


def driver_section(name: str, driver: Driver) -> Iterator[str]:
    """One driver."""
    yield from ("", f"## {name}", "", inspect.getdoc(type(driver)) or "", "")
    yield from abilities(driver.capabilities)
    yield from ("", "Of a network (`net create`, `net update`):", "")
    yield from options(driver.options)
    yield from ("", "Of an endpoint (`net connect`):", "")
    yield from options(driver.endpoint_options)


def abilities(can: Capabilities) -> Iterator[str]:
    """What a driver declares, in words."""
    scope = {"local": "one host", "global": "many hosts"}[can.scope]
    yield f"- Reaches over {scope}" + (
        "; there is one of its kind on a host." if can.single else "."
    )
    yield {
        "pool": "- Endpoints get addresses from the network's subnets.",
        "none": "- Endpoints get no addresses.",
    }[can.addressing]
    yield (
        "- Ports can be published."
        if can.publishes
        else f"- Ports can not be published: {can.why_not_published}."
    )
    yield {
        "gateway": "- Names are resolved at the gateway's address.",
        "sandbox": "- Names are resolved inside the sandbox, at 127.0.0.11; of a program there "
        "that wants all of port 53, see [names](names.md#where-it-listens).",
        "none": "- Names are not resolved.",
    }[can.names]


def options(known: Iterable[Option]) -> list[str]:
    """A table of options."""
    rows = [
        [
            f"`{option.key}`",
            option.help,
            f"`{option.default}`" if option.default else "",
            ", ".join(f"`{choice}`" for choice in option.choices),
            "yes" if option.live else "",
            ", ".join(f"`{alias}`" for alias in option.aliases),
        ]
        for option in known
    ]
    head = ["option", "meaning", "default", "values", "live", "also known as"]
    return table(head, rows) if rows else ["None."]


# -- commands -----------------------------------------------------------------------------------


def commands() -> dict[str, Any]:
    """Every command of the command line by its full name: `net sandbox create`."""
    import click

    from netlib.frontends.cli.program import program

    def below(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
        if isinstance(command, click.Group):
            with click.Context(command, info_name=name) as context:
                for part in command.list_commands(context):
                    child = command.get_command(context, part)
                    if child is not None and not child.hidden:
                        yield from below(f"{name} {part}", child)
        else:
            yield name, command

    return dict(below("net", program))


def commands_page() -> str:
    """The help of every command; what is common to all is said once."""
    import click

    lines: list[str] = []
    common: dict[str, None] = {}
    for name, command in commands().items():
        above, _, last = name.rpartition(" ")
        parent = click.Context(click.Group(), info_name=above)
        width = {"terminal_width": 80, "max_content_width": 80}
        settings: dict[str, Any] = {**width, **command.context_settings}
        with click.Context(command, info_name=last, parent=parent, **settings) as context:
            paragraphs = command.get_help(context).split("\n\n")
        common |= dict.fromkeys(part for part in paragraphs if part.startswith("Common options:"))
        own = "\n\n".join(part for part in paragraphs if part not in common)
        lines += ["", f"## {name}", "", "```", *own.splitlines(), "```"]
    return page(
        "Commands",
        "What `net COMMAND --help` says. Every command takes the common options, before or after",
        "its name. Exit status: 0 done, 1 failed, 2 wrong usage, 3 no such thing, 4 conflict,",
        "5 exhausted, 6 not permitted, 7 the state can't be reached.",
        "",
        *("```", *"\n\n".join(common).splitlines(), "```"),
        *lines,
    )


# -- Markdown -----------------------------------------------------------------------------------


def page(title: str, *lines: str) -> str:
    """A page with a heading, and a remark for who would edit it."""
    remark = "<!-- Written by `make docs`: change the code, not this page. -->"
    text = "\n".join([f"# {title}", "", remark, "", *(line.rstrip() for line in lines)])
    return text.rstrip("\n") + "\n"


def table(head: list[str], rows: Iterable[list[Any]]) -> list[str]:
    """A table."""
    cells = [head, ["---"] * len(head), *([str(cell) for cell in row] for row in rows)]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells]


def first_line(shape: type) -> str:
    """The first line of a docstring."""
    return (inspect.getdoc(shape) or "").partition("\n")[0]


if __name__ == "__main__":
    for path, text in pages().items():
        (ROOT / path).write_text(text)
        print(path)
