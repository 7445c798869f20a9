"""
What index templates of the site give to an index of a certain name.

Where a composable template matches, the older kind counts for nothing; of the older kind all that match count, in order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from idxctl.config import sums
from idxctl.core.errors import OpenSearchRefused
from idxctl.opensearch import answers, error_answers
from idxctl.opensearch.client import Client, segment

_NOWHERE = "opensearch-indexing-nowhere-*"
_FIRST = 2**31 - 1  # a priority that no template of a site has for this name
_PARTS = ("settings", "mappings")


@dataclass(frozen=True)
class Given:
    """What an index is given beside what its maker asks for."""

    names: tuple[str, ...] = ()  # of the templates, as far as they could be found out
    settings: Mapping[str, Any] = field(default_factory=dict)  # flat, without their prefix
    mappings: Mapping[str, Any] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()

    @property
    def by(self) -> str:
        """Name the templates, for a sentence."""
        return "template " + ", ".join(self.names) if self.names else "a template"


def given(client: Client, name: str) -> Given:
    """Return what an index *name* would be given; nothing where this role may not ask."""
    try:
        found = client.ask("POST", f"/_index_template/_simulate_index/{segment(name)}", answers.template, repeat=True)
        if found:
            return _given((_composable(client, name),), [found])
        older = client.ask("GET", "/_template", answers.named)
    except OpenSearchRefused as error:
        if error.status in {401, 403, 404, 405}:
            return Given()
        raise
    matching = sorted(
        ((one, older[one]) for one in older if _matches(older[one], name)), key=lambda pair: _number(pair[1], "order")
    )
    return _given(tuple(one for one, _ in matching), [body for _, body in matching])


def refusal(client: Client, mapping: Mapping[str, Any], *, timeout_seconds: float | None = None) -> str | None:
    """
    Return why OpenSearch would not make an index of this *mapping* (``settings`` and ``mappings``); None where it would.

    It is asked to try a template that is not stored, under a name that no index has: nothing is made or changed. Where this
    role may not ask, nothing is said.
    """
    body = {
        "index_patterns": [_NOWHERE],
        "priority": _FIRST,
        "template": {part: mapping[part] for part in _PARTS if part in mapping},
    }
    try:
        client.ask(
            "POST",
            "/_index_template/_simulate",
            answers.template,
            body=body,
            repeat=True,
            timeout_seconds=timeout_seconds,
        )
    except OpenSearchRefused as error:
        if error.status == 400:
            return error_answers.innermost(error.body) or error.message
        if error.status in {401, 403, 404, 405}:
            return None
        raise
    return None


def _given(names: tuple[str, ...], bodies: list[dict[str, Any]]) -> Given:
    settings: dict[str, Any] = {}
    mappings: dict[str, Any] = {}
    aliases: set[str] = set()
    for body in bodies:
        settings.update(sums.flattened(_part(body, "settings")))
        mappings.update(_part(body, "mappings"))
        aliases.update(_part(body, "aliases"))
    return Given(tuple(one for one in names if one), settings, mappings, tuple(sorted(aliases)))


def _composable(client: Client, name: str) -> str:
    """Return the name of the composable template that an index would be made from."""
    known = client.ask("GET", "/_index_template", lambda text: answers.listed(text, "index_templates"))
    bodies = {str(one.get("name")): _part(one, "index_template") for one in known}
    matching = [one for one, body in bodies.items() if _matches(body, name)]
    return max(matching, key=lambda one: _number(bodies[one], "priority"), default="")


def _matches(body: Mapping[str, Any], name: str) -> bool:
    patterns = body.get("index_patterns")
    texts = [one for one in patterns if isinstance(one, str)] if isinstance(patterns, list) else []
    return any(fnmatchcase(name, one.replace("[", "[[]").replace("?", "[?]")) for one in texts)


def _part(body: Mapping[str, Any], name: str) -> dict[str, Any]:
    part = body.get(name)
    return part if isinstance(part, dict) else {}


def _number(body: Mapping[str, Any], name: str) -> int:
    value = body.get(name)
    return value if isinstance(value, int) else 0
