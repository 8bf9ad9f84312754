"""`net driver ls`."""

from __future__ import annotations

from typing import Any

import click

from netlib.driver import Option
from netlib.frontends.cli.command import NetCommand, NetGroup
from netlib.frontends.cli.session import Session


@click.group("driver", cls=NetGroup)
def driver_command() -> None:
    """List the drivers and what they can do.

    Example:  net driver ls
    """


@driver_command.command("ls", cls=NetCommand)
@click.option("-v", "--verbose", is_flag=True, help="With every option of theirs.")
@click.pass_obj
def driver_ls(session: Session, verbose: bool) -> None:
    """List the drivers that are installed.

    Third parties add theirs by an entry point of the group netlib.drivers. One that can't be
    loaded, or is called like one of netlib's own, is listed with the reason.

    Example:  net driver ls
    Example:  net driver ls -v
    """
    from netlib.errors import DriverError

    documents: list[dict[str, Any]] = []
    with session.net() as net:
        for name in net.engine.registry.names():
            try:
                driver = net.engine.registry.get(name)
            except DriverError as error:
                documents.append({"name": name, "problem": error.message})
                continue
            able = driver.capabilities
            documents.append(
                {
                    "name": name,
                    "scope": able.scope,
                    "addressing": able.addressing,
                    "publishes": able.publishes,
                    "names": able.names,
                    "options": [_view(option) for option in driver.options],
                    "endpoint_options": [_view(option) for option in driver.endpoint_options],
                }
            )
        unused = net.engine.registry.unused()
        documents += [{"name": name, "problem": why} for name, why in unused]
    if session.json:
        session.show({"drivers": documents})
        return
    from netlib.frontends.cli.output import table

    rows: list[tuple[str, ...]] = []
    for one in documents:
        if "problem" in one:
            rows.append((one["name"], "-", "-", "-", "-", str(one["problem"])))
            continue
        publishes = "yes" if one["publishes"] else "no"
        rows.append((one["name"], one["scope"], one["addressing"], publishes, one["names"], ""))
    heads = ("DRIVER", "SCOPE", "ADDRESSES", "PUBLISHES", "NAMES", "PROBLEM")
    text = table(heads, rows)
    if verbose:
        for one in documents:
            text += "".join(
                f"\n\n{one['name']}: {title}\n{_options(one[key])}"
                for key, title in (("options", "options"), ("endpoint_options", "of endpoints"))
                if one.get(key)
            )
    session.show({}, text)


def _view(option: Option) -> dict[str, Any]:
    fields = ("key", "help", "aliases", "default", "choices", "live", "device")
    return {field: getattr(option, field) for field in fields}


def _options(options: object) -> str:
    from netlib.frontends.cli.output import table

    assert isinstance(options, list)
    rows = [
        (
            option["key"],
            "|".join(option["choices"]) or "-",
            option["default"] or "-",
            "yes" if option["live"] else "no",
            option["help"],
        )
        for option in options
    ]
    return table(("OPTION", "VALUES", "DEFAULT", "LIVE", "MEANING"), rows)
