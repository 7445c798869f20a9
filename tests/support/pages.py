"""Pages with their URL as key, in a database of any encoding: ids of any length and characters."""

from __future__ import annotations

import contextlib
import secrets
import urllib.parse
from collections.abc import Iterator

import psycopg
from psycopg import sql

from idxctl.queue import claim
from support.rig import Rig, until


@contextlib.contextmanager
def pages(server: str, opensearch: str, index: str, directory, migrate, encoding: str) -> Iterator[Rig]:
    """Pages with their URL as key, in a database of that encoding."""
    name = f"idxctl_test_ids_{secrets.token_hex(6)}"
    with psycopg.connect(server, autocommit=True) as connection:
        create = sql.SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING {} LC_COLLATE 'C' LC_CTYPE 'C'")
        connection.execute(create.format(sql.Identifier(name), sql.Literal(encoding)))
        url = urllib.parse.urlsplit(server)._replace(path=f"/{name}", query="client_encoding=UTF8").geturl()
        try:
            migrate(url)
            with psycopg.connect(url, autocommit=True) as own:
                own.execute("CREATE TABLE pages (url text NOT NULL, doc json NOT NULL)")
                own.execute("CREATE UNIQUE INDEX ON pages (md5(url))")
                own.execute("INSERT INTO pages SELECT 'p' || i, json_build_object('n', i) FROM generate_series(1, 5) i")
            (directory / "document.sql").write_text("SELECT url AS document_id, doc AS document FROM pages")
            (directory / "mapping.json").write_text(
                '{"settings": {"number_of_replicas": 0}, "mappings": {"properties": {"n": {"type": "integer"}}}}'
            )
            (directory / "idxctl.toml").write_text(
                f'[indexes.{index}]\ndocument = "document.sql"\nmapping = "mapping.json"\n'
                f'[[indexes.{index}.watch]]\ntable = "pages"\nkey = "url"\n'
            )
            rig = Rig(url, opensearch, index, directory)
            try:
                rig.watch()
                rig.reindex()
                yield rig
            finally:
                rig.close()
        finally:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def take(rig: Rig) -> claim.Batch:
    """Claim what is due."""
    (head, *_) = until(lambda: claim.heads(rig.conn), "nothing is due")
    taken = claim.claim(
        rig.conn, index=head.index, priority=head.priority, worker="test:1:a", limit=1000, lease_seconds=30
    )
    assert taken is not None
    return taken.batch
