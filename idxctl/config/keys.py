"""
Every key of the configuration: what it takes, what it decides, and what a change of it needs to come into force.

The readers (`idxctl.config.load`) knows no other keys; docs/configuration.md and ``idxctl config schema`` are made from these.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from idxctl.config.settings import (
    PRESETS,
    DatabaseSettings,
    HttpSettings,
    OpenSearchSettings,
    WorkerSettings,
)
from idxctl.config.values import (
    BOOLEAN,
    COMMAND,
    COUNT,
    PATH,
    PERIOD,
    SECONDS,
    SECRET,
    TEXT,
    URLS,
    Value,
    one_of,
)


class Takes(Enum):
    """What a change of a key needs to come into force. Commands read the configuration at each run."""

    RESTART = "restart workers, `serve` and applications"
    WORKERS = "restart workers and applications"
    SERVERS = "restart `serve` and workers with `--http`"
    COMMAND = "nothing; the next command reads it"
    REBUILD = "`idxctl reindex`"
    INSTALL = "`idxctl watch install`"
    BOTH = "`idxctl watch install`, then `idxctl reindex`"


@dataclass(frozen=True)
class Key:
    """
    One key. ``default`` and ``example`` are as TOML writes them; ``flag`` is where a command line names it too.

    A key of a section has the variable ``IDXCTL_<SECTION>_<KEY>``.
    """

    value: Value
    text: str
    takes: Takes
    example: str
    default: str = ""
    flag: str = ""


def _secret(of: str, key: str, example: str, takes: Takes = Takes.RESTART) -> dict[str, Key]:
    """Return the three ways to give a secret."""
    return {
        key: Key(SECRET, of, takes, f'"{example}"'),
        f"{key}_file": Key(PATH, "The same, read from this file; a line break at its end is left out.", takes, f'"/run/secrets/{key}"'),
        f"{key}_command": Key(
            COMMAND, "The same, as printed by this command; it has 30 s, and runs in the folder of the file.", takes, f'"pass show idxctl/{key}"'
        ),
    }  # fmt: skip


def _duration(seconds: float) -> str:
    return f'"{seconds / 60:g}m"' if seconds % 60 == 0 else f'"{seconds:g}s"'


_DATABASE: Mapping[str, Key] = {
    **_secret(
        "Where PostgreSQL is: a URL, or libpq's `name=value` pairs. In a URL's password `@`, `/`, `:` and `%` are written `%40`, `%2F`, "
        "`%3A` and `%25`. Without it libpq's own variables (`PGHOST`, `PGUSER`, `PGPASSWORD`, ...) and `~/.pgpass` decide.",
        "url",
        "postgresql://idxctl@db1:5432/shop",
    ),
    "schema": Key(
        TEXT,
        "The schema of idxctl's own tables, without the first of the search path. `migrate up` creates it. Changing it later moves "
        "nothing: the tables that are there stay where they are.",
        Takes.RESTART,
        '"idxctl"',
    ),
    "read_timeout": Key(
        SECONDS,
        "How long one statement that reads documents may take. A batch that takes longer is read in smaller parts; a single "
        "document that does becomes a dead letter. A worker gives a read less than its lease at any rate. Limits that the role or "
        "the database sets (`statement_timeout`) do not apply to idxctl's own statements.",
        Takes.WORKERS,
        '"2m"',
        _duration(DatabaseSettings.read_timeout_seconds),
    ),
}

_OPENSEARCH: Mapping[str, Key] = {
    "url": Key(
        URLS,
        "Where OpenSearch is. With several, a request of which nothing was sent goes to the next one, and one that fails is left "
        "out for a while. A user and password in it count as `username` and `password`.",
        Takes.RESTART,
        '"https://search1:9200,https://search2:9200"',
        f'"{OpenSearchSettings.urls[0]}"',
    ),
    "username": Key(TEXT, "For basic authentication, with `password`. Give one of basic, `bearer_token`, `api_key` and `aws_region`.", Takes.RESTART, '"idxctl"'),
    **_secret("The password for `username`.", "password", "..."),
    **_secret("A bearer token, sent as `Authorization: Bearer`.", "bearer_token", "..."),
    **_secret("An API key, sent as `Authorization: ApiKey`.", "api_key", "..."),
    "aws_region": Key(
        TEXT,
        "Sign requests for AWS (SigV4) with the credentials that botocore finds. Needs the extra `aws`.",
        Takes.RESTART,
        '"eu-central-1"',
    ),
    "aws_service": Key(one_of("es", "aoss"), "What is signed for: `es`, or `aoss` for serverless.", Takes.RESTART, '"aoss"', f'"{OpenSearchSettings.aws_service}"'),
    "ca_file": Key(PATH, "Certificates of the authorities to trust (PEM), in place of the system's.", Takes.RESTART, '"ca.pem"'),
    "client_cert": Key(PATH, "A certificate to authenticate with (PEM).", Takes.RESTART, '"client.pem"'),
    "client_key": Key(PATH, "The key of `client_cert`, where it is not in the same file.", Takes.RESTART, '"client.key"'),
    "verify": Key(BOOLEAN, "`false` accepts any certificate: anyone in between can read and change everything.", Takes.RESTART, "true", "true"),
    "compress": Key(BOOLEAN, "Send bodies compressed: less traffic for more CPU.", Takes.RESTART, "true", "false"),
    "request_timeout": Key(
        SECONDS,
        "How long OpenSearch may take to answer one request. At most `[worker] lease`; together with `[worker] age_limit` less than "
        "`index.gc_deletes` of every index (5 minutes where idxctl creates it).",
        Takes.WORKERS,
        '"20s"',
        _duration(OpenSearchSettings.request_timeout_seconds),
    ),
}  # fmt: skip

_PRESETS = ", ".join(f"`{name}` {workers} and {size:,}" for name, (workers, size) in PRESETS.items())

_WORKER: Mapping[str, Key] = {
    "workers": Key(COUNT, "Threads of a worker process; each carries one batch at a time.", Takes.WORKERS, "10", str(WorkerSettings.workers), "worker start --workers"),
    "queue_size": Key(
        COUNT,
        "How many due tasks of normal and high priority count as full. The queue itself has no limit: at 90 % of this the system is "
        "not healthy and an alert fires, and at all of it the library indexes inside the request.",
        Takes.WORKERS,
        "5000",
        str(WorkerSettings.queue_size),
        "worker start --queue-size",
    ),
    "preset": Key(
        one_of(*PRESETS),
        f"`workers` and `queue_size` in one word: {_PRESETS}. Figures given beside it win, and so does a preset on the command line over "
        "figures in the file.",
        Takes.WORKERS,
        '"high"',
        flag="worker start --preset",
    ),
    "batch_size": Key(COUNT, "Tasks of one claim, at most.", Takes.WORKERS, "500", str(WorkerSettings.batch_size)),
    "batch_bytes": Key(
        COUNT,
        "Bytes of one request to OpenSearch, about. A worker sends less while OpenSearch refuses more. A single larger document is sent alone.",
        Takes.WORKERS,
        "4194304",
        str(WorkerSettings.batch_bytes),
    ),
    "max_attempts": Key(
        COUNT,
        "How often a document may fail through its own fault before it is a dead letter. Outages spend no attempt.",
        Takes.WORKERS,
        "5",
        str(WorkerSettings.max_attempts),
    ),
    "drain_timeout": Key(
        SECONDS,
        "How long the first SIGTERM or Ctrl-C waits for what is in flight; what is left then goes back into the queue. A supervisor "
        "should wait some seconds longer (`TimeoutStopSec=40`).",
        Takes.WORKERS,
        '"1m"',
        _duration(WorkerSettings.drain_timeout_seconds),
        "worker start --drain-timeout",
    ),
    "lease": Key(
        SECONDS,
        "How long a batch stays with a worker that is not heard of; a living worker renews it. Shorter: batches of a lost worker "
        "come back sooner behind a pooler. At least `[opensearch] request_timeout`.",
        Takes.WORKERS,
        '"1m"',
        _duration(WorkerSettings.lease_seconds),
    ),
    "age_limit": Key(
        SECONDS,
        "How old a document may be when it is sent, counted from the token of its batch; an older one is read again. With `[opensearch] "
        "request_timeout` less than `index.gc_deletes` of every index, or a deleted document could come back.",
        Takes.WORKERS,
        '"2m"',
        _duration(WorkerSettings.age_limit_seconds),
    ),
}  # fmt: skip

_SCRUB: Mapping[str, Key] = {
    "every": Key(
        PERIOD,
        "Workers compare every document of every index with its row once in this time, in quiet moments: the first half of it has room "
        "for that, the rest is head room. All worker processes share in it.",
        Takes.RESTART,
        '"24h"',
        '"off"',
        "worker start --scrub",
    ),
    "repair": Key(
        BOOLEAN,
        "Enqueue what a scrub finds to differ, to be written again; `false` only reports it. Dead letters are left to their retries, and "
        "nothing is repaired where more than half differ.",
        Takes.RESTART,
        "false",
        "true",
    ),
}


_DLQ: Mapping[str, Key] = {
    "adopt_index": Key(
        TEXT,
        "The index that dead letters of an older program's `opensearch_indexing_dlq` belong to. Not needed with one index.",
        Takes.COMMAND,
        '"marketplace_listings"',
        flag="migrate up --adopt-index",
    ),
    "store": Key(
        one_of("full", "none"),
        "`none`: the `data` that an older program put into a letter is not kept beyond its retry. idxctl itself stores no documents.",
        Takes.WORKERS,
        '"none"',
        '"full"',
    ),
}
_LOG: Mapping[str, Key] = {
    "values": Key(
        BOOLEAN,
        "`false` keeps values that errors quote out of tables and logs: an error ends with `…` where it begins to quote. Ids are never hidden.",
        Takes.WORKERS,
        "false",
        "true",
    ),
}
_HTTP: Mapping[str, Key] = {
    "listen": Key(
        TEXT,
        "Where `serve` listens, `HOST:PORT`. `worker start` listens only where `--http` says so. Beyond loopback a token must be "
        "configured.",
        Takes.SERVERS,
        '"0.0.0.0:9321"',
        f'"{HttpSettings.listen}"',
        "serve --http",
    ),
    **_secret("The token of one operator, or its hash as `serve --hash-token` prints it. 16 characters at least beyond loopback.", "token", "...", Takes.SERVERS),
    "tokens_file": Key(
        PATH,
        "A file with a name, a role (`viewer` or `operator`) and a token, or its hash, a line. The name goes into the audit.",
        Takes.SERVERS,
        '"/etc/idxctl/tokens"',
    ),
    "read_only": Key(BOOLEAN, "Change nothing over HTTP, whatever the token.", Takes.SERVERS, "true", "false", "serve --read-only"),
    "anonymous_read": Key(BOOLEAN, "Let anybody who can connect read everything, dead letters included.", Takes.SERVERS, "true", "false"),
    "rate_limit": Key(COUNT, "Requests a second of one token, or of one address without a token; bursts may have twice that.", Takes.SERVERS, "20", str(HttpSettings.rate_limit)),
    "max_body": Key(COUNT, "Bytes of a request's body, at most.", Takes.SERVERS, "131072", str(HttpSettings.max_body)),
}  # fmt: skip

SECTIONS: Mapping[str, Mapping[str, Key]] = {
    "database": _DATABASE,
    "opensearch": _OPENSEARCH,
    "worker": _WORKER,
    "scrub": _SCRUB,
    "dlq": _DLQ,
    "log": _LOG,
    "http": _HTTP,
}

# Variables that stand for no key.
VARIABLES: Mapping[str, str] = {
    "IDXCTL_CONFIG": "The configuration file; `--config` wins. Without either, `idxctl.toml` in the working directory.",
    "IDXCTL_TRUST_DIRECTORY": "Folders, separated by `:`, whose files are trusted although others can write them.",
    "ENABLE_ASYNC_INDEXING": "`true`, `1`, `yes` or `on`: the library indexes asynchronously from its first use on.",
    "IDXCTL_CACHE_DIR": "Where the demo and `idxctl.testing` keep OpenSearch's files. Default: `~/.cache/idxctl`.",
    "IDXCTL_TEST_DATABASE_URL": "For `idxctl.testing` and idxctl's own tests: a PostgreSQL that is there, as a role that may create databases.",
    "IDXCTL_TEST_OPENSEARCH_URL": "The same for OpenSearch.",
    "NO_COLOR": "Set to anything: no colour.",
}
