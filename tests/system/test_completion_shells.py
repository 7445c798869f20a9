"""The completion scripts in real shells: keys are pressed on a pseudo-terminal, and what appears is read."""

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from idxctl.cli.app import NOUNS

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
SECONDS = 20
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b[=>()][0-9AB]?|\x1b\][^\x07]*\x07|[\x00\x07\r]|\x1b[78M]")
KILL_LINE = "\x15"


class Terminal:
    """A shell on a pseudo-terminal of 200 columns."""

    def __init__(self, argv, env, cwd):
        self._master, slave = pty.openpty()
        self._process = subprocess.Popen(
            argv, stdin=slave, stdout=slave, stderr=slave, env=env, cwd=cwd, start_new_session=True
        )
        os.close(slave)

    def press(self, keys):
        os.write(self._master, keys.encode())

    def expect(self, *patterns):
        """Read until all *patterns* have appeared, in any order, and return what was read."""
        seen, until = "", time.monotonic() + SECONDS
        while not all(re.search(pattern, seen) for pattern in patterns):
            ready, _, _ = select.select([self._master], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                pytest.fail(f"{patterns} did not appear in {SECONDS} s; on the terminal: {seen!r}")
            seen += ESCAPES.sub("", os.read(self._master, 65536).decode(errors="replace"))
        return seen

    def close(self):
        self._process.kill()
        self._process.wait()
        os.close(self._master)


@pytest.fixture
def environment(tmp_path):
    """A home of its own, and ``idxctl`` on PATH."""
    binaries = tmp_path / "bin"
    binaries.mkdir()
    (binaries / "idxctl").write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m idxctl "$@"\n')
    (binaries / "idxctl").chmod(0o755)
    (tmp_path / "empty").mkdir()
    path = f"{binaries}:/usr/local/bin:/usr/bin:/bin"
    return {"PATH": path, "HOME": str(tmp_path), "TERM": "xterm", "COLUMNS": "200", "LINES": "50", "LANG": "C.UTF-8"}


def needed(shell):
    program = shutil.which(shell)
    if program is None:
        pytest.fail(f"no {shell} on this machine: apt-get install {shell}")
    return program


@pytest.fixture(params=["bash", "zsh autoloaded", "zsh sourced"])
def shell(request, environment, tmp_path):
    """A shell in which completions are installed as the documentation says."""
    home = Path(environment["HOME"])
    if request.param == "bash":
        (home / "rc").write_text(
            f"PS1='ready> '\nbind 'set enable-bracketed-paste off'\n. {ROOT}/completions/idxctl.bash\n"
        )
        argv = [needed("bash"), "--noprofile", "--rcfile", str(home / "rc"), "-i"]
    else:
        load = f"fpath=({ROOT}/completions $fpath); autoload -Uz compinit; compinit -u -D"
        if request.param == "zsh sourced":
            load = f"autoload -Uz compinit; compinit -u -D; . {ROOT}/completions/_idxctl"
        (home / ".zshrc").write_text(f"{load}\nunsetopt zle_bracketed_paste PROMPT_SP\nPS1='ready> '\nLISTMAX=1000\n")
        argv = [needed("zsh"), "-i"]
        environment["ZDOTDIR"] = str(home)
    terminal = Terminal(argv, environment, tmp_path / "empty")
    terminal.expect("ready> ")
    yield terminal
    terminal.close()


@pytest.mark.parametrize(
    ("typed", "becomes"),
    [
        ("idxctl cro", "idxctl cron "),
        ("idxctl cron inst", "idxctl cron install "),
        ("idxctl cron install --sch", "idxctl cron install --schedule "),
        ("idxctl --config x cron show -o mark", "idxctl --config x cron show -o markdown "),
        ("idxctl completion z", "idxctl completion zsh "),
    ],
)
def test_tab_completes_commands_options_and_values(shell, typed, becomes):
    shell.press(typed + "\t")
    assert "rror" not in shell.expect(re.escape(becomes))


def test_tab_lists_what_is_possible(shell):
    nouns = [name for name, noun in NOUNS.items() if not noun.hidden]
    shell.press("idxctl \t\t")
    assert "rror" not in shell.expect(*(rf"(?<![\w-]){noun}(?![\w-])" for noun in nouns))
    shell.press(KILL_LINE + "idxctl cron install --\t\t")
    shell.expect("--schedule", "--limit", "--env-file", "--print", "--help")


def offered_by_fish(line, environment):
    asked = [needed("fish"), "--command", f'complete --do-complete "{line}"']
    done = subprocess.run(asked, env=environment, capture_output=True, text=True, check=False, cwd=environment["HOME"])
    assert done.stderr == ""
    return [offer.partition("\t")[0] for offer in done.stdout.splitlines()]


@pytest.fixture
def fish(environment):
    home = Path(environment["HOME"])
    directory = home / ".config" / "fish" / "completions"
    directory.mkdir(parents=True)
    shutil.copy(ROOT / "completions" / "idxctl.fish", directory)
    return environment


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("idxctl cro", ["cron"]),
        ("idxctl cron ", ["install", "remove", "show"]),
        ("idxctl cron install --lo", ["--log", "--logger"]),
        ("idxctl --config x cron show -o mark", ["markdown"]),
        ("idxctl completion ", ["bash", "fish", "zsh"]),
    ],
)
def test_fish_offers_commands_options_and_values(fish, typed, offered):
    assert sorted(offered_by_fish(typed, fish)) == offered


def test_fish_offers_every_noun_with_its_help(fish):
    assert sorted(offered_by_fish("idxctl ", fish)) == sorted(name for name, noun in NOUNS.items() if not noun.hidden)


@pytest.mark.parametrize("noun", NOUNS)
def test_zsh_reads_what_it_is_told_about_every_noun(noun, environment):
    """The program answers zsh with code to be evaluated: no help text may break it."""
    stub = "_arguments() { print -r -- $#; }; "
    for word in ("", "-"):
        ask = f'eval "$(_TYPER_COMPLETE_ARGS="idxctl {noun} {word}" _IDXCTL_COMPLETE=complete_zsh idxctl)"'
        argv = [needed("zsh"), "-f", "-c", f"{stub} _files() {{ print 1; }}; {ask}"]
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
        assert (done.stdout, done.stderr) == ("1\n", "")
