"""``idxctl completion``: the script that lets a shell complete commands and options."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer

from idxctl.cli import render


class Shell(str, Enum):
    """The shells there is a script for."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def completion(
    shell: Annotated[Shell, typer.Argument(help="The shell the script is for.", show_default=False)],
) -> None:
    """
    Print the completion script of a shell.

    bash: idxctl completion bash > ~/.local/share/bash-completion/completions/idxctl

    zsh: idxctl completion zsh > _idxctl in a directory of $fpath

    fish: idxctl completion fish > ~/.config/fish/completions/idxctl.fish
    """
    render.script(script(shell))


def script(shell: Shell) -> str:
    """Return the script that asks the program itself, found on PATH, at every key press."""
    from typer._completion_shared import get_completion_script

    text = get_completion_script(prog_name="idxctl", complete_var="_IDXCTL_COMPLETE", shell=shell.value)
    if shell is Shell.ZSH:
        # zsh runs the file itself as the function the first time: it must complete then, not only define.
        text = text.replace("\ncompdef _idxctl_completion idxctl", _ZSH_END)
    return text


def enable() -> None:
    """Let the program answer the scripts. Called only in a run that a shell started for completions."""
    import typer._completion_classes as classes

    classes.completion_init()
    # Our help is plain text. typer would take it for markup, and import rich at every key press to do so.
    classes._sanitize_help_text = str  # type: ignore[assignment]  # noqa: SLF001


_ZSH_END = """
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
  _idxctl_completion "$@"
else
  compdef _idxctl_completion idxctl
fi"""
