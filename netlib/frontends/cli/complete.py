"""What the shell offers when a name is to be typed. An error there offers nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from netlib.errors import NetError
from netlib.frontends.cli.session import Session

if TYPE_CHECKING:
    from netlib.net import Net


def _offer(
    ctx: click.Context, incomplete: str, ask: Callable[[Net], Iterable[tuple[str, str]]]
) -> list[CompletionItem]:
    session = ctx.find_object(Session) or Session()
    try:
        with session.net() as net:
            return [
                CompletionItem(name, help=note)
                for name, note in ask(net)
                if name.startswith(incomplete)
            ]
    except NetError:
        return []


def networks(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of networks, with their drivers."""
    return _offer(ctx, incomplete, lambda net: ((n.name, n.driver) for n in net.networks()))


def sandboxes(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of sandboxes."""
    return _offer(ctx, incomplete, lambda net: ((box.name, box.kind) for box in net.sandboxes()))


def nodes(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of a cluster's hosts, as this one knows them: etcd is not waited for."""

    def known(net: Net) -> Iterable[tuple[str, str]]:
        from netlib.cluster import keys
        from netlib.cluster.model import Node
        from netlib.records import load_as
        from netlib.store import under

        copies = net.engine.state.store.range(*under(keys.NODES))
        return ((n.name, n.role) for n in (load_as(Node, copy.value) for copy in copies))

    return _offer(ctx, incomplete, known)


def drivers(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of drivers."""
    return _offer(ctx, incomplete, lambda net: ((d, "") for d in net.engine.registry.names()))


def labs(_ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of labs, with what they tell of."""
    from netlib.labs.catalogue import TITLES

    return [CompletionItem(n, help=t) for n, t in TITLES.items() if n.startswith(incomplete)]
