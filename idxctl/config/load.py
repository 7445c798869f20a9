"""
Reads the configuration: flags over environment over ``idxctl.toml`` over defaults.

Every problem is collected and they are reported together, each with its source and the way out. No message carries the
value of a secret, nor of anything that may hold one (URLs, connection strings).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from idxctl.config import files, processes, sums, trust
from idxctl.config.files import ConfigFile, Files
from idxctl.config.given import Sections, plain
from idxctl.config.indexes import Indexes
from idxctl.config.problems import Findings, InvalidConfig
from idxctl.config.secrets import Secrets
from idxctl.config.servers import Servers
from idxctl.config.settings import Settings


def load(
    *,
    environ: Mapping[str, str],
    flags: Mapping[str, Any] | None = None,
    path: Path | None = None,
    need_indexes: bool = True,
) -> Settings:
    """
    Read the configuration. *flags* are named like ``worker.workers``; those that are None were not given.

    The file is *path*, else ``IDXCTL_CONFIG``, else ``idxctl.toml`` in the working directory. The last may be missing
    if the environment names a server, or if *need_indexes* is false: there are no indexes then. Files that others can
    write or exchange are refused (see `trust`). Raises `InvalidConfig` with every problem found.
    """
    findings = Findings()
    trusted, wrong = trust.of(environ)
    for folder in wrong:
        fix = f"write {Path(folder).absolute()}"
        findings.wrong(trust.VARIABLE, "", f"{folder!r} is not an absolute path", fix)
    file = files.find(path, environ=environ, need_file=need_indexes, trusted=trusted, findings=findings)
    settings = _settings(
        file,
        sections=Sections(environ=environ, flags=flags or {}, file=file, findings=findings),
        files=Files(trusted, file, findings),
        environ=environ,
        findings=findings,
    )
    _check_sums(settings, file, findings)
    if findings.problems:
        rest = settings if all(one.where.startswith("indexes.") for one in findings.problems) else None
        raise InvalidConfig(findings.in_order(), remarks=list(findings.remarks.values()), rest=rest)
    return settings


def _settings(
    file: ConfigFile, *, sections: Sections, files: Files, environ: Mapping[str, str], findings: Findings
) -> Settings:
    """Read every section; what is wrong is in *findings* and a default stands in its place."""
    secrets = Secrets(environ=environ, config=file, files=files, findings=findings)
    servers = Servers(files=files, secrets=secrets, findings=findings)
    sections.report_unknown_sections()
    sections.report_unknown_variables()
    database = servers.database(sections.read("database"))
    opensearch = servers.opensearch(sections.read("opensearch"))
    worker = processes.worker(sections.read("worker"), findings)
    scrub = processes.scrub(sections.read("scrub"), findings)
    http = processes.http(sections.read("http"), files=files, secrets=secrets, findings=findings)
    dlq = plain("dlq", sections.read("dlq"), findings)
    log = plain("log", sections.read("log"), findings)
    return Settings(
        database=replace(database, keep_values=log.get("values", True), keep_data=dlq.get("store", "full") == "full"),
        opensearch=opensearch,
        worker=worker,
        http=http,
        scrub=scrub,
        indexes=Indexes(file=file, files=files, findings=findings).read(),
        adopt_index=dlq.get("adopt_index"),
        path=file.path,
        sources=findings.sources,
        remarks=tuple(findings.remarks.values()),
    )


def _check_sums(settings: Settings, file: ConfigFile, findings: Findings) -> None:
    """Report the sums that rules of the protocol rest on, where they do not hold (T3, C3, G3)."""
    age_limit, timeout = settings.worker.age_limit_seconds, settings.opensearch.request_timeout_seconds
    if broken := sums.lease_too_short(settings.worker.lease_seconds, timeout):
        named = ("worker.lease", "opensearch.request_timeout")
        sources = [settings.sources[name] for name in named if name in settings.sources]
        findings.wrong(" and ".join(dict.fromkeys(sources)), "", broken.what, broken.fix)
    for index in settings.indexes.values():
        given = index.mapping.get("settings")
        held = sums.gc_deletes(given if isinstance(given, dict) else {})
        if broken := sums.forgotten_too_soon("the index to be created", held, (age_limit, timeout)):
            source = file.at("indexes", index.name, "mapping")
            findings.wrong(source, f"indexes.{index.name}", broken.what, broken.fix)
