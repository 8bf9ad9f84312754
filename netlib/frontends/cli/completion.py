"""`net completion`."""

from __future__ import annotations

import click

from netlib.frontends.cli.command import NetCommand
from netlib.frontends.cli.session import Session


@click.command("completion", cls=NetCommand)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion_command(ctx: click.Context, shell: str) -> None:
    """Print the code that completes `net` in a shell.

    Commands, options, and names of networks and sandboxes.

    Example:  net completion bash > ~/.local/share/bash-completion/completions/net
    Example:  net completion fish > ~/.config/fish/completions/net.fish
    """
    from click.shell_completion import get_completion_class

    root = ctx.find_root()
    name = root.info_name or "net"
    kind = get_completion_class(shell)
    assert kind is not None  # all three are click's own
    complete = kind(root.command, {}, name, f"_{name.replace('-', '_')}_COMPLETE".upper())
    source = complete.source_template % complete.source_vars()
    session = ctx.find_object(Session) or Session()
    session.show({"shell": shell, "source": source}, source)
