"""The settings in force as rows for people, each with the place it came from."""

from __future__ import annotations

from dataclasses import fields
from datetime import timedelta
from pathlib import Path
from typing import Any

from idxctl.config.settings import ScrubSettings, Settings
from idxctl.core.durations import format_duration
from idxctl.core.secret import Secret


def listing(settings: Settings) -> list[tuple[str, Any, str]]:
    """Return every setting as (name, value, source), for people; secrets are stars."""
    rows: list[tuple[str, Any, str]] = []

    def add(name: str, value: Any, source: str | None = None) -> None:
        rows.append(
            (name, "***" if isinstance(value, Secret) else value, source or settings.sources.get(name, "default"))
        )

    add("database.url", settings.database.url)
    add("database.schema", settings.database.schema)
    add("database.read_timeout", format_duration(settings.database.read_timeout_seconds))
    for section, values in (("opensearch", settings.opensearch), ("worker", settings.worker)):
        for item in fields(values):
            name = "url" if item.name == "urls" else item.name.removesuffix("_seconds")
            value = getattr(values, item.name)
            if item.name.endswith("_seconds"):
                value = timedelta(seconds=value)
            add(f"{section}.{name}", str(value) if isinstance(value, Path) else value)
    every = settings.scrub.every_seconds
    add("scrub.every", format_duration(every) if every else "off")
    add("scrub.repair", settings.scrub.repair is not False)
    for name in ("listen", "read_only", "anonymous_read", "rate_limit", "max_body"):
        add(f"http.{name}", getattr(settings.http, name))
    add("http.bearers", [f"{one.name} ({one.role})" for one in settings.http.bearers])
    add("dlq.adopt_index", settings.adopt_index)
    add("dlq.store", "full" if settings.database.keep_data else "none")
    add("log.values", settings.database.keep_values)
    for index in settings.indexes.values():
        place = str(settings.path or "")
        add(f"indexes.{index.name}.document", str(index.document_path) if index.document_path else "inline SQL", place)
        add(f"indexes.{index.name}.watches", [watch.table for watch in index.watches], place)
        if index.scrub != ScrubSettings():
            scrub = settings.scrub_of(index.name)
            add(f"indexes.{index.name}.scrub.every", format_duration(scrub.every_seconds) if scrub else "off", place)
            add(f"indexes.{index.name}.scrub.repair", scrub is None or scrub.repair, place)
    return rows
