"""``[database]`` and ``[opensearch]``: where the servers are, and who asks them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, unquote

from idxctl.config.files import Files, why
from idxctl.config.given import FILE, Given, plain
from idxctl.config.problems import Findings
from idxctl.config.secrets import Secrets
from idxctl.config.settings import DatabaseSettings, OpenSearchSettings
from idxctl.config.values import Wrong, connection_string
from idxctl.core.secret import Secret


class Servers:
    """Reads what the two sections give, with their secrets and certificates."""

    def __init__(self, *, files: Files, secrets: Secrets, findings: Findings) -> None:
        self._files = files
        self._secrets = secrets
        self._findings = findings

    def database(self, values: Mapping[str, Given]) -> DatabaseSettings:
        """Return ``[database]``, without what stands in other sections."""
        url = self._secrets.find("database", "url", values)
        if url:
            try:
                connection_string(url.value.reveal())
            except Wrong as wrong:
                self._findings.wrong(url.source, url.where, *url.called("url", wrong))
        figures = plain(
            "database", {key: values[key] for key in ("schema", "read_timeout") if key in values}, self._findings
        )
        return DatabaseSettings(
            url=url.value if url else None,
            schema=figures.get("schema"),
            read_timeout_seconds=figures.get("read_timeout", DatabaseSettings.read_timeout_seconds),
        )

    def opensearch(self, values: Mapping[str, Given]) -> OpenSearchSettings:
        """Return ``[opensearch]``."""
        secrets = {
            key: self._secrets.find("opensearch", key, values) for key in ("password", "bearer_token", "api_key")
        }
        username = values.get("username")
        urls: tuple[str, ...] = OpenSearchSettings.urls
        if "url" in values:
            urls, username, secrets["password"] = self._user_info(values["url"], username, secrets["password"])
        self._one_auth(values, username, secrets)
        simple = ("aws_region", "aws_service", "verify", "compress", "request_timeout")
        named = {key: given for key, given in values.items() if key in (*simple, "url")}
        figures = plain("opensearch", named, self._findings)
        figures.pop("url", None)
        if "request_timeout" in figures:
            figures["request_timeout_seconds"] = figures.pop("request_timeout")
        files = {key: self._file("opensearch", key, values) for key in ("ca_file", "client_cert", "client_key")}
        if "client_key" in values and "client_cert" not in values:
            given = values["client_key"]
            self._findings.wrong(
                given.source, given.where, "client_key without client_cert", "name the certificate too"
            )
        if username:
            self._findings.sources["opensearch.username"] = username.source
        words = {key: given.value if given else None for key, given in secrets.items()}
        everything: dict[str, Any] = {**figures, **files, **words}
        return OpenSearchSettings(urls=urls, username=username.value if username else None, **everything)

    def _user_info(
        self, url: Given, username: Given | None, password: Given | None
    ) -> tuple[tuple[str, ...], Given | None, Given | None]:
        """Move user and password out of the URLs, so that no URL ever shown holds them."""
        shown = []
        people: set[tuple[str, str | None]] = set()
        for entry in url.value:
            shown.append(_without_user(entry))
            if entry.username:
                people.add((unquote(entry.username), unquote(entry.password) if entry.password else None))
        if len(people) > 1:
            self._findings.wrong(
                url.source, url.where, "url: the URLs name different users", "use one user, as username and password"
            )
        elif people:
            ((user, word),) = people
            for key, other in (("username", username), ("password", password)):
                if other and other.rank == url.rank:
                    self._findings.unread.add(f"opensearch.{key}")
                    self._findings.wrong(
                        other.source, other.where, f"{key} is given in the URL too", "keep one of them"
                    )
            if username is None or username.rank < url.rank:
                username = replace(url, value=user)
                if word and url.rank == FILE:
                    self._secrets.note_secret("password", word)
                if word and (password is None or password.rank < url.rank):
                    password = replace(url, value=Secret(word))
                    self._findings.sources["opensearch.password"] = url.source
        return tuple(shown), username, password

    def _one_auth(
        self, values: Mapping[str, Given], username: Given | None, secrets: Mapping[str, Given | None]
    ) -> None:
        given = {
            "username and password": username or secrets["password"],
            "bearer_token": secrets["bearer_token"],
            "api_key": secrets["api_key"],
            "aws_region": values.get("aws_region"),
        }
        ways = {name: found for name, found in given.items() if found}
        if len(ways) > 1:
            sources = ", ".join(dict.fromkeys(found.source for found in ways.values()))
            self._findings.wrong(
                sources, "", f"{len(ways)} ways to authenticate to OpenSearch: {', '.join(ways)}", "keep one of them"
            )
        password = secrets["password"]
        if password and not username and not self._findings.unread & {"opensearch.username", "opensearch.url"}:
            self._findings.wrong(
                password.source,
                password.where,
                "a password without a username",
                "set username too (IDXCTL_OPENSEARCH_USERNAME)",
            )
        names = ("password", "password_file", "password_command")
        asked = any(name in values or f"opensearch.{name}" in self._findings.unread for name in names)
        if username and not password and not asked and "opensearch.username" not in self._findings.unread:
            self._findings.wrong(
                username.source,
                username.where,
                "a username without a password",
                "set IDXCTL_OPENSEARCH_PASSWORD, or password_file",
            )
        if "aws_service" in values and "aws_region" not in values:
            service = values["aws_service"]
            self._findings.wrong(service.source, service.where, "aws_service without aws_region", "set aws_region too")

    def _file(self, section: str, key: str, values: Mapping[str, Given]) -> Path | None:
        """Return the path that a key names, if it can be read."""
        given = values.get(key)
        if given is None:
            return None
        self._findings.sources[f"{section}.{key}"] = given.source
        path = given.path
        try:
            self._files.read(path, secret=key == "client_key", named_by_file=False)
        except OSError as error:
            self._findings.wrong(given.source, given.where, f"{key}: cannot read {path}: {why(error)}")
            return None
        except Wrong as wrong:
            self._findings.wrong(given.source, given.where, f"{key}: {wrong.what}", wrong.fix)
            return None
        return path


def _without_user(url: SplitResult) -> str:
    host = url.netloc.rpartition("@")[2]
    return f"{url.scheme}://{host}{url.path.rstrip('/')}"
