"""`net completion`."""

from __future__ import annotations

import click

from netlib.frontends.cli.command import NetCommand
from netlib.frontends.cli.session import Session

# As click's own, but for colons and equals signs: bash takes what stands between them for words of
# their own (COMP_WORDBREAKS), and would never complete netns:NAME or --network=NAME.
_BASH = """\
%(complete_func)s() {
    local IFS=$'\\n' words=() word last prefix="" completion type value
    for word in "${COMP_WORDS[@]:0:COMP_CWORD+1}"; do
        if [[ ${#words[@]} -gt 1 && ( $word == [:=]* || ${words[-1]} == *[:=] ) ]]; then
            words[-1]+=$word
        else
            words+=("$word")
        fi
    done
    last=${words[-1]}
    [[ $last == -*=* ]] && last=${last#*=}
    [[ $COMP_WORDBREAKS == *:* ]] && prefix=${last%%"${last##*:}"}
    COMPREPLY=()
    for completion in $(env COMP_WORDS="${words[*]}" COMP_CWORD=$((${#words[@]} - 1)) \\
        %(complete_var)s=bash_complete $1); do
        IFS=',' read -r type value <<< "$completion"
        case $type in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            plain) COMPREPLY+=("${value#"$prefix"}") ;;
        esac
    done
    return 0
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""


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
    template = _BASH if shell == "bash" else complete.source_template
    source = template % complete.source_vars()
    session = ctx.find_object(Session) or Session()
    session.show({"shell": shell, "source": source}, source)
