"""``configuration.md``: every key, from the table that the reader of the configuration works by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from idxctl.config.index_keys import INDEX, WATCH
from idxctl.config.keys import SECTIONS, VARIABLES, Key
from making.markdown import MADE, cell, code_cell, page, table

_ABOUT = {
    "database": "PostgreSQL, and how idxctl reads from it.",
    "opensearch": "OpenSearch, and how idxctl authenticates there.",
    "worker": "How much a worker does at once, and how long it holds on to it. Applications that index in process read it too.",
    "scrub": "Comparing every document with its row, for ever, beside the work.",
    "dlq": "Dead letters.",
    "log": "What logs, and the errors in idxctl's tables, may hold.",
    "http": "The HTTP of `serve` and `worker start --http`: [http.md](http.md).",
}


def configuration_page() -> str:
    """Return the page."""
    return page(
        "# Configuration",
        MADE,
        "A flag wins over the environment, that over the file, that over the default. The file is TOML, `idxctl.toml` in the working\n"
        "directory unless `--config` or `IDXCTL_CONFIG` names another; paths in it are relative to it. `idxctl config show` says where\n"
        "each value came from, `idxctl config validate` names every problem at once, and `idxctl config schema > idxctl.schema.json`\n"
        "with `#:schema idxctl.schema.json` as the file's first line has editors complete and check it.",
        "An unknown key or section is refused, with the nearest name. An empty variable counts as not set. A file that others can write is\n"
        "refused: [security.md](security.md#files-that-decide).",
        table(("section", ""), [*((f"[`[{name}]`](#{name})", text) for name, text in _ABOUT.items()),
                                ("[`[indexes.NAME]`](#indexesname)", "How a document is made."),
                                ("[`[[indexes.NAME.watch]]`](#indexesnamewatch)", "Which tables it is made from.")]),
        *(part for name, keys in SECTIONS.items() for part in _section(name, keys)),
        "## [indexes.NAME]",
        "NAME is the alias that clients query.",
        *(part for name, key in INDEX.items() for part in _key("indexes.NAME", name, key)),
        "## [[indexes.NAME.watch]]",
        "One for each table that a document shows anything of. Several may name the same table.",
        *(part for name, key in WATCH.items() for part in _key("watch", name, key)),
        "## Other variables",
        "libpq's variables (`PGHOST`, `PGSERVICE`, `PGPASSFILE`, ...) work where `[database] url` leaves something open.",
        table(("variable", ""), ((code_cell(name), cell(text)) for name, text in VARIABLES.items())),
    )  # fmt: skip


def _section(name: str, keys: Mapping[str, Key]) -> Iterator[str]:
    yield f"## [{name}]"
    yield _ABOUT[name]
    for key, known in keys.items():
        yield from _key(name, key, known)


def variable(section: str, key: str) -> str:
    """Return the variable of a section's key."""
    return f"IDXCTL_{section}_{key}".upper()


def _key(place: str, name: str, key: Key) -> Iterator[str]:
    yield f"### {place}.{name}"
    yield key.text
    sources = [f"In the file: `{name} = {key.example}`"]
    if place in SECTIONS:
        sources.append(f"variable `{variable(place, name)}`")
    if key.flag:
        sources.append(f"flag of `idxctl {key.flag.rpartition(' ')[0]}`: `{key.flag.rpartition(' ')[2]}`")
    default = f"Default: `{key.default}`." if key.default else "Without a default."
    yield "\n".join(
        [f"- {'; '.join(sources)}.", f"- Takes {key.value.words}. {default}", f"- A change needs: {key.takes.value}."]
    )
