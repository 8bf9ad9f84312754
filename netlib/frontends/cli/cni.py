"""`net cni install|conflist`."""

from __future__ import annotations

import click

from netlib.frontends.cli import complete
from netlib.frontends.cli.command import NetCommand, NetGroup, dry_run
from netlib.frontends.cli.session import Session, dump


@click.group("cni", cls=NetGroup)
def cni_command() -> None:
    """Plug netlib into container runtimes.

    For those that speak CNI: containerd, CRI-O, Podman 4, Nomad. See docs/cni.md.

    Example: net cni install /opt/cni/bin
    """


@cni_command.command("install", cls=NetCommand)
@click.option("--script", is_flag=True, help="The Python script, even where the program is there.")
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False))
@dry_run
@click.pass_obj
def cni_install(session: Session, script: bool, folder: str, dry_run: bool) -> None:
    """Put the plugin into a runtime's plugin folder, with a sample conflist beside it.

    The compiled program where this installation has it, else a script. Either is told where
    the state is. Prints what it wrote.

    Example: net cni install /opt/cni/bin
    """
    from netlib.frontends.cni.installing import install

    written = install(folder, session.state_dir, script=script, dry_run=dry_run)
    session.show({"installed": written}, "\n".join(written))


@cni_command.command("conflist", cls=NetCommand)
@click.argument("network", shell_complete=complete.networks)
@click.pass_obj
def cni_conflist(session: Session, network: str) -> None:
    """Print a conflist that attaches containers to a network that exists.

    It declares what can be asked for there: no ports on an internal network, say. To be put
    into the runtime's configuration folder, often /etc/cni/net.d.

    Example: net cni conflist my-net
    """
    from netlib.frontends.cni.installing import capabilities_on, conflist

    with session.net() as net:
        known = net.inspect(network).network
        capabilities = capabilities_on(known, net.engine.driver(known).capabilities)
    click.echo(dump(conflist(known.name, capabilities)))
