"""``[worker]``, ``[scrub]`` and ``[http]``: how idxctl's own processes run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from idxctl.config import bearers
from idxctl.config.files import Files, why
from idxctl.config.given import FILE, Given, plain
from idxctl.config.problems import Findings
from idxctl.config.secrets import Secrets
from idxctl.config.settings import PRESETS, Bearer, HttpSettings, ScrubSettings, WorkerSettings
from idxctl.config.values import Wrong


def worker(values: Mapping[str, Given], findings: Findings) -> WorkerSettings:
    """Return ``[worker]``: the preset's figures unless named."""
    given = dict(values)
    preset = given.pop("preset", None)
    if preset:
        source = f"preset {preset.value}, {preset.source}"
        for key, figure in zip(("workers", "queue_size"), PRESETS[preset.value], strict=True):
            # A preset on the command line beats figures in the file; figures beside it beat the preset.
            if key not in given or given[key].rank < preset.rank:
                given[key] = replace(preset, value=figure, source=source)
    figures = plain("worker", given, findings)
    renamed = {key: figures.pop(key) for key in ("drain_timeout", "lease", "age_limit") if key in figures}
    return WorkerSettings(**figures, **{f"{key}_seconds": value for key, value in renamed.items()})


def scrub(values: Mapping[str, Given], findings: Findings) -> ScrubSettings:
    """Return ``[scrub]``."""
    said = plain("scrub", values, findings)
    return ScrubSettings(said.get("every", 0.0), said.get("repair", True))


def http(values: Mapping[str, Given], *, files: Files, secrets: Secrets, findings: Findings) -> HttpSettings:
    """Return ``[http]``; what is unwise about its file of tokens goes with it, and not to the remarks on the whole."""
    found: list[Bearer] = []
    token = secrets.find("http", "token", values)
    if token is not None and not bearers.sendable(token.value.reveal()):
        findings.wrong(token.source, token.where, "token: holds a blank or a character that no header carries")
    elif token is not None and bearers.broken_hash(token.value.reveal()):
        findings.wrong(token.source, token.where, f"token: {bearers.BROKEN_HASH}", bearers.HASH_HINT)
    elif token is not None:
        found.append(Bearer("operator", "operator", token.value))
        findings.sources["http.bearers"] = token.source
    if "tokens_file" in values:
        found += _bearers(values["tokens_file"], files, findings)
        findings.sources["http.bearers"] = values["tokens_file"].source
    simple = ("listen", "read_only", "anonymous_read", "rate_limit", "max_body")
    figures = plain("http", {key: given for key, given in values.items() if key in simple}, findings)
    path = values["tokens_file"].path if "tokens_file" in values else None
    remarks = [findings.remarks.pop(place) for place in list(findings.remarks) if place[1] == path]
    return HttpSettings(**figures, bearers=tuple(found), remarks=tuple(remarks))


def _bearers(given: Given, files: Files, findings: Findings) -> list[Bearer]:
    """Read the file of bearer tokens."""
    path = given.path
    try:
        found, wrong = bearers.parse(
            files.read(path, secret=True, named_by_file=given.rank == FILE).decode("utf-8-sig")
        )
    except Wrong as error:
        findings.wrong(given.source, given.where, f"tokens_file: {error.what}", error.fix)
        return []
    except (OSError, UnicodeDecodeError) as error:
        findings.wrong(given.source, given.where, f"tokens_file: cannot read {path}: {why(error)}")
        return []
    for one in wrong:
        line = f" line {one.line}" if one.line else ""
        findings.wrong(given.source, given.where, f"tokens_file: {path}{line} {one.what}", one.fix)
    return found
