"""``idxctl monitoring``: what Prometheus and Grafana need."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from idxctl.cli import render
from idxctl.cli.app import exits, plain_app
from idxctl.cli.render import Column
from idxctl.cli.state import OutputOption

app = plain_app(help="Write alert rules, a dashboard and a scrape configuration.")


@app.command(epilog=exits())
def export(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where to write; made if need be.")],
    *,
    output: OutputOption,
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            metavar="HOST:PORT",
            show_default=False,
            help="A process to scrape; may be repeated [default: 127.0.0.1:9321].",
        ),
    ] = None,
    runbook: Annotated[
        str, typer.Option("--runbook", metavar="URL", help="Where alerts.md will be read; alerts link to it.")
    ] = "alerts.md",
    label: Annotated[
        str, typer.Option("--label", metavar="LABEL", help="Prometheus' label that distinguishes installations.")
    ] = "job",
    force: Annotated[bool, typer.Option("--force", help="Write over files that were changed.")] = False,
) -> None:
    """Write scrape configuration, alert rules with tests and a runbook, and a Grafana dashboard. Needs no server."""
    from idxctl.monitoring import files

    written = files.export(directory, targets=target or ["127.0.0.1:9321"], runbook=runbook, label=label, force=force)
    render.table(
        [{"file": str(one.path), "state": one.state, "what": one.what} for one in written],
        [Column("file", kind="name"), Column("state", kind="name"), Column("what")],
        output,
    )
    render.next_step("promtool test rules " + str(directory / "idxctl.rules.test.yml"), output)
