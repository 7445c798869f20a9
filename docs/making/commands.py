"""``commands.md``: every command with its arguments, options and exit statuses, from the command line's own declarations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import typer
import typer.main

from idxctl.cli.app import NOUNS, STATUSES, app
from idxctl.cli.state import Output
from making.markdown import MADE, cell, code_cell, page, plain, table


@dataclass(frozen=True)
class Command:
    """One command: its words, and what the command line knows of it."""

    words: tuple[str, ...]  # ("dlq", "retry")
    spec: Any

    @property
    def name(self) -> str:
        """As it is typed."""
        return " ".join(("idxctl", *self.words))

    @property
    def options(self) -> list[Any]:
        """Its options, without ``--help``."""
        return [one for one in self.spec.params if _is_option(one)]

    @property
    def arguments(self) -> list[Any]:
        """Its arguments."""
        return [one for one in self.spec.params if not _is_option(one)]

    @property
    def flags(self) -> set[str]:
        """All spellings of its options."""
        return {name for one in self.options for name in (*one.opts, *one.secondary_opts)} | {"--help", "-h"}


def _is_option(parameter: Any) -> bool:
    return bool(parameter.param_type_name == "option")


def root() -> Command:
    """Return the command line itself, with the global options."""
    return Command((), typer.main.get_command(app))


def commands() -> list[Command]:
    """Return every command that can be run, in the order of ``--help``."""
    top = root().spec
    return [one for noun in NOUNS if not NOUNS[noun].hidden for one in _below(top.get_command(None, noun), (noun,))]


def _below(spec: Any, words: tuple[str, ...]) -> Iterator[Command]:
    inner = getattr(spec, "commands", None)
    if not inner:
        yield Command(words, spec)
        return
    if getattr(spec, "invoke_without_command", False):
        yield Command(words, spec)
    for name, one in inner.items():
        if not one.hidden:
            yield from _below(one, (*words, name))


def commands_page() -> str:
    """Return the page."""
    found = commands()
    return page(
        "# Commands",
        MADE,
        "`idxctl COMMAND --help` says the same. Data goes to stdout, everything else to stderr. Global options stand before the\n"
        "command: `idxctl --config shop.toml dlq stats`. A flag wins over the environment, that over the file, that over the\n"
        "default: [configuration.md](configuration.md).",
        table(("global option", "default", ""), (_option(one) for one in root().options)),
        f"FORMAT of `-o` is {', '.join(f'`{one.value}`' for one in Output)}: [what they hold](#output). A DURATION carries a unit: `90s`,\n"
        "`5m`, `2h`, `7d`.",
        table(("command", ""), ((f"[`{one.name}`](#{anchor(one)})", cell(_first_line(one))) for one in found)),
        "## Exit statuses",
        _statuses(),
        "## Output",
        _OUTPUT,
        *(part for one in found for part in _section(one)),
    )


def anchor(command: Command) -> str:
    """Return the anchor of a command's section."""
    return command.name.replace(" ", "-")


def _statuses() -> list[str]:
    rows = [(str(status), _MEANING[status].format(STATUSES[status])) for status in STATUSES]
    return table(
        ("status", ""),
        [*rows, ("130, 143", "ended by Ctrl-C or SIGTERM"), ("141", "the program that read its output ended")],
    )


_OUTPUT = """- `table`: for people, on a terminal. `plain`: the same without colour and frame, elsewhere; `markdown`: to paste.
- `json`: one document. `ndjson`: one JSON object a line. `csv`: one row a line. All rows there are, and keys that stay.
- In these three times are ISO 8601 with their zone, and ages are seconds."""

_MEANING = {
    0: "{}",
    1: "{}: the message says why, `hint:` what to do",
    2: "{}: an option or argument that cannot be meant",
    3: "{}: some of it was done, some was not; the message says what",
    4: "{}: it is wrong, or idxctl's tables are missing or of another version",
    5: "{}: PostgreSQL or OpenSearch does not answer; try again",
    6: "{}: one of its kind at a time",
    7: "{}, as `--exit-code` asks for",
    8: "{}: what was waited for may still happen",
}


def _first_line(command: Command) -> str:
    return " ".join(_paragraphs(command.spec.help)[0].split())


def _paragraphs(text: str) -> list[str]:
    return [one.strip() for one in text.strip().split("\n\n") if one.strip()]


def _section(command: Command) -> Iterator[str | list[str]]:
    yield f"## {command.name}"
    yield from (plain(one) for one in _paragraphs(command.spec.help))
    usage = [command.name, "[OPTIONS]" if command.options else "", *(_placeholder(one) for one in command.arguments)]
    yield ["```", " ".join(part for part in usage if part), "```"]
    if command.arguments:
        yield table(
            ("argument", ""), ((code_cell(_placeholder(one)), cell(one.help or "")) for one in command.arguments)
        )
    if command.options:
        yield table(("option", "default", ""), (_option(one) for one in command.options))
    if command.spec.epilog:
        yield command.spec.epilog


def _placeholder(parameter: Any) -> str:
    shown = str(parameter.make_metavar(typer.Context(typer.main.get_command(app))))
    return shown.removeprefix(f"{parameter.name}:")


def _option(option: Any) -> tuple[str, str, str]:
    """Return an option's spelling, default and help; a default that the help states in brackets is moved."""
    names = ", ".join(sorted(option.opts, key=len, reverse=True))
    value = "" if option.is_flag else " " + _value(option)
    text, _, stated = (option.help or "").partition("[default: ")
    default = stated.partition("]")[0].rstrip(".") if stated else _default(option)
    text = text.strip() + stated.partition("]")[2]
    bounds = _bounds(option)
    return (
        code_cell(names + value),
        cell(default),
        cell(text.strip(" .") + (f" ({bounds})." if bounds else "." if text else "")),
    )


def _value(option: Any) -> str:
    if option.metavar:
        return str(option.metavar)
    if "--output" in option.opts:
        return "FORMAT"
    if hasattr(option.type, "choices"):
        return "|".join(str(getattr(one, "value", one)) for one in option.type.choices)
    return "NUMBER" if _bounds(option) or option.type.name == "integer" else "TEXT"


def _bounds(option: Any) -> str:
    low, high = getattr(option.type, "min", None), getattr(option.type, "max", None)
    if low is not None and high is not None:
        return f"{low:,} to {high:,}"
    return f"at least {low:,}" if low is not None else f"at most {high:,}" if high is not None else ""


def _default(option: Any) -> str:
    value = option.default
    if option.is_flag or value is None or callable(value) or not option.show_default:
        return ""
    return str(getattr(value, "value", value))
