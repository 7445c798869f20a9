"""A connection as it comes from the driver: opened, and set up so that documents pass through it as the bytes that they are."""

from __future__ import annotations

import json
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.types.json import set_json_dumps

from idxctl.config.settings import DatabaseSettings
from idxctl.core.errors import ConfigError, PostgresRefused, PostgresUnreachable
from idxctl.postgres import any_bytes, odd_times
from idxctl.postgres.silence import KEEPALIVES, PatientConnection
from idxctl.postgres.translated import sentence, translated

CONNECT_TIMEOUT_SECONDS = 10


def opened(settings: DatabaseSettings, *, application_name: str) -> PatientConnection:
    """Open a connection; raises as `idxctl.postgres.connect.connect` says."""
    conninfo = settings.url.reveal() if settings.url else ""
    target = describe(settings)
    try:
        given = conninfo_to_dict(conninfo)
        options: dict[str, Any] = {
            "application_name": given.get("application_name", application_name),
            "connect_timeout": given.get("connect_timeout", CONNECT_TIMEOUT_SECONDS),
            "client_encoding": "UTF8",  # documents go to OpenSearch as the bytes that come, whatever the database's own
            **{name: given.get(name, value) for name, value in KEEPALIVES.items()},
        }
        raw = PatientConnection.connect(conninfo, autocommit=True, prepare_threshold=None, **options)
        set_json_dumps(_json, raw)
        odd_times.shown_by(raw)
        if any_bytes.is_of(raw):
            any_bytes.passed_by(raw)
    except psycopg.OperationalError as error:
        raise PostgresUnreachable(
            f"cannot connect to {target}: {sentence(error)}", hint=_connect_hint(error)
        ) from error
    except psycopg.ProgrammingError:
        raise ConfigError(
            "the PostgreSQL connection string cannot be read",
            hint="IDXCTL_DATABASE_URL or [database] url: postgresql://user@host:5432/name, or host=... dbname=...",
        ) from None  # libpq's sentence quotes what it could not read, a password as well
    return raw


def schema_of(raw: PatientConnection, settings: DatabaseSettings) -> str:
    """Return the schema of our tables: the configured one, otherwise the first of the search path."""
    with translated("connect"):
        return settings.schema or _current_schema(raw)


def describe(settings: DatabaseSettings) -> str:
    """Name the server for people: user, host, port and database, never a password."""
    try:
        parts = conninfo_to_dict(settings.url.reveal() if settings.url else "")
    except psycopg.ProgrammingError:
        return "PostgreSQL"
    defaults = {
        one.keyword.decode(): one.val.decode() for one in psycopg.pq.Conninfo.get_defaults() if one.val
    }  # PG* as libpq reads them
    host = parts.get("host") or parts.get("hostaddr") or defaults.get("host") or "the default host"
    where = f"{host}:{parts.get('port') or defaults.get('port') or 5432}"
    name = parts.get("dbname") or defaults.get("dbname")
    return f"PostgreSQL at {where}" + (f", database {name}" if name else "")


def _json(value: Any) -> str:
    """Return JSON without escapes beyond ASCII: a database of another encoding than UTF-8 refuses these, whatever they name."""
    return json.dumps(value, ensure_ascii=False)


def _current_schema(raw: PatientConnection) -> str:
    raw.patience = CONNECT_TIMEOUT_SECONDS  # a part of connecting
    row = raw.execute("SELECT pg_catalog.current_schema()").fetchone()
    raw.patience = None
    if row is None or row[0] is None:
        raw.close()
        raise PostgresRefused(
            "no schema to put idxctl's tables in: the search path names none that exists",
            sqlstate="3F000",
            hint="set [database] schema in idxctl.toml",
        )
    return str(row[0])


def _connect_hint(error: psycopg.Error) -> str:
    text = str(error)
    if "password" in text or "authentication" in text:
        return "check the user and password: IDXCTL_DATABASE_URL, [database] url, PGPASSWORD or ~/.pgpass"
    if "does not exist" in text:
        return "check the database and user names in IDXCTL_DATABASE_URL or [database] url"
    return "is it running, and is IDXCTL_DATABASE_URL (or [database] url, or PGHOST and PGPORT) right?"
