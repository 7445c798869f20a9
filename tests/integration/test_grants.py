"""The whole product with five roles that own nothing more than `idxctl grants` gives them; everything else is refused."""

from __future__ import annotations

import json
import urllib.parse
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from idxctl.config.settings import DatabaseSettings
from idxctl.core.secret import Secret
from idxctl.postgres import rights
from idxctl.postgres.connect import connect

KINDS = ("application", "worker", "operator", "viewer", "installer")
SCHEMA = """
CREATE SCHEMA shop;
CREATE TABLE shop.categories (id bigint PRIMARY KEY, name text NOT NULL);
CREATE TABLE shop.items (id bigint PRIMARY KEY, name text NOT NULL, price text NOT NULL DEFAULT '1', category_id bigint, ends_at timestamptz);
CREATE TABLE shop.parts (id bigserial PRIMARY KEY, item_id bigint NOT NULL, name text NOT NULL) PARTITION BY HASH (id);
CREATE TABLE shop.parts_0 PARTITION OF shop.parts FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE shop.parts_1 PARTITION OF shop.parts FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE TABLE shop.secrets (id bigint PRIMARY KEY, card text);
CREATE INDEX ON shop.items (category_id);
CREATE INDEX ON shop.parts (item_id);
CREATE FUNCTION shop.shown(name text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT upper(name) $$;
REVOKE ALL ON FUNCTION shop.shown(text) FROM PUBLIC;
INSERT INTO shop.categories SELECT i, 'category ' || i FROM generate_series(1, 3) i;
INSERT INTO shop.items (id, name, category_id) SELECT i, 'item ' || i, i % 3 + 1 FROM generate_series(1, 20) i;
INSERT INTO shop.parts (item_id, name) SELECT i, 'part of ' || i FROM generate_series(1, 20) i;
"""
CONFIG = """
[database]
schema = "idxctl"
[indexes.NAME]
document = '''
SELECT i.id AS document_id, jsonb_build_object('name', shop.shown(i.name), 'price', i.price, 'category', c.name,
    'parts', (SELECT coalesce(jsonb_agg(p.name ORDER BY p.id), '[]') FROM shop.parts p WHERE p.item_id = i.id)) AS document
FROM shop.items i LEFT JOIN shop.categories c ON c.id = i.category_id'''
mapping = { settings = { number_of_shards = 1, number_of_replicas = 0 }, mappings = { dynamic = "strict", properties = { name = { type = "keyword" }, price = { type = "float" }, category = { type = "keyword" }, parts = { type = "keyword" } } } }
[[indexes.NAME.watch]]
table = "shop.items"
key = "id"
at = "ends_at"
[[indexes.NAME.watch]]
table = "shop.parts"
key = "item_id"
[[indexes.NAME.watch]]
table = "shop.categories"
keys = "SELECT i.id FROM shop.items i JOIN changed c ON i.category_id = c.id"
"""


@dataclass
class Bank:
    """A database whose roles may do nothing that was not granted, and the command line as each of them."""

    url: str
    index: str
    config: Path
    names: dict[str, str]
    command_line: object

    def url_of(self, kind: str) -> str:
        parts = urllib.parse.urlsplit(self.url)
        return parts._replace(netloc=f"{self.names[kind]}:x@{parts.netloc.rpartition('@')[2]}").geturl()

    def run(self, kind: str, *arguments: object, status: int = 0):
        done = self.command_line(*arguments, env={"IDXCTL_DATABASE_URL": self.url_of(kind)})
        assert done.status == status, (kind, arguments, done.stdout, done.stderr)
        return done

    def refused(self, kind: str, *arguments: object) -> str:
        """Whatever it is, the role may not, and hears which right is missing and where to get it."""
        done = self.command_line(*arguments, env={"IDXCTL_DATABASE_URL": self.url_of(kind)})
        assert done.status in {1, 4}, (kind, arguments, done.stdout, done.stderr)
        assert "idxctl grants" in done.stderr, done.stderr
        assert "needs" in done.stderr, done.stderr
        return done.stderr

    def sql(self, kind: str, statement: str, *values: object) -> list[tuple]:
        with psycopg.connect(self.url_of(kind), autocommit=True) as conn:
            cursor = conn.execute(statement, values or None)
            return cursor.fetchall() if cursor.description else []

    def admin(self, statement: str, *values: object) -> list[tuple]:
        with psycopg.connect(self.url, autocommit=True) as conn:
            cursor = conn.execute(statement, values or None)
            return cursor.fetchall() if cursor.description else []

    def denied(self, kind: str, statement: str) -> None:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            self.sql(kind, statement)

    def grant(self, *kinds: str) -> None:
        """Print what these kinds need, and have PostgreSQL's administrator run it as it was printed."""
        flags = [word for kind in kinds for word in (f"--{kind}", self.names[kind])]
        script = self.command_line("grants", *flags, env={"IDXCTL_DATABASE_URL": self.url})
        assert script.status == 0, script.stderr
        self.admin(script.stdout)


@pytest.fixture
def bank(database, opensearch_url, unique_name, idxctl, tmp_path):
    names = {kind: f"{unique_name}_{kind}" for kind in (*KINDS, "owner")}
    config = tmp_path / "idxctl.toml"
    config.write_text(CONFIG.replace("NAME", unique_name))
    made = Bank(database, unique_name, config, names, idxctl.use(opensearch=opensearch_url, config=config))
    with psycopg.connect(database, autocommit=True) as admin:
        for name in names.values():
            admin.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'x'").format(sql.Identifier(name)))
        try:
            name = admin.info.dbname
            admin.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(sql.Identifier(name)))
            admin.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
            owner, application = (sql.Identifier(names[kind]) for kind in ("owner", "application"))
            admin.execute(sql.SQL("GRANT CREATE, CONNECT ON DATABASE {} TO {}").format(sql.Identifier(name), owner))
            made.sql("owner", SCHEMA)
            own = "GRANT USAGE ON SCHEMA shop TO {0}; GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA shop TO {0}; "
            admin.execute(sql.SQL(own + "GRANT USAGE ON ALL SEQUENCES IN SCHEMA shop TO {0}").format(application))
            admin.execute(sql.SQL("GRANT EXECUTE ON FUNCTION shop.shown(text) TO {}").format(application))
            yield made
        finally:
            for role in names.values():
                admin.execute(sql.SQL("DROP OWNED BY {0} CASCADE; DROP ROLE {0}").format(sql.Identifier(role)))


@pytest.fixture
def running(bank):
    """Migrated and watched by the installer, all roles granted, one generation made by the operator."""
    bank.grant("installer")
    bank.run("installer", "migrate", "up")
    bank.run("installer", "watch", "install")
    bank.grant("application", "worker", "operator", "viewer")
    bank.run("operator", "reindex")
    return bank


def documents(bank, command_line) -> dict[str, dict]:
    import urllib.request

    url = command_line.environ["IDXCTL_OPENSEARCH_URL"]
    for path in (f"/{bank.index}/_refresh", f"/{bank.index}/_search?size=100"):
        with urllib.request.urlopen(url + path, timeout=30) as answer:
            found = json.load(answer)
    return {one["_id"]: one["_source"] for one in found["hits"]["hits"]}


def test_five_roles_run_the_whole_product(running, idxctl):
    # The application writes its rows, and needs nothing for the triggers.
    running.sql("application", "UPDATE shop.items SET name = 'changed' WHERE id = 1")
    running.sql("application", "INSERT INTO shop.items (id, name, ends_at) VALUES (21, 'new', now() - interval '1 s')")
    running.sql("application", "DELETE FROM shop.items WHERE id = 20")
    running.sql(
        "application", "INSERT INTO shop.parts (item_id, name) SELECT 2, 'more ' || i FROM generate_series(1, 4) i"
    )
    running.sql("application", "UPDATE shop.categories SET name = 'renamed' WHERE id = 1")
    running.sql("application", "UPDATE shop.items SET price = 'dear' WHERE id IN (5, 6)")
    running.sql("application", "SELECT idxctl.opensearch_indexing_enqueue(%s, '7')", running.index)
    assert running.run("viewer", "queue", "stats", "-o", "json").json["queued"] > 0
    assert running.run("viewer", "queue", "list", "-o", "json").json
    running.run("worker", "worker", "start", "--until-empty")
    found = documents(running, idxctl)
    assert found["1"]["name"] == "CHANGED"
    assert found["21"]["name"] == "NEW"
    assert "20" not in found
    assert len(found["2"]["parts"]) == 5
    assert {one["category"] for one in found.values()} >= {"renamed"}
    assert running.run("viewer", "dlq", "stats", "-o", "json").json["total"] == 2
    assert len(running.run("viewer", "dlq", "list", "-o", "json").json) == 2
    # The operator works on what failed, without a worker, and on the queue.
    running.sql("application", "UPDATE shop.items SET price = '2' WHERE id = 5")
    running.run("operator", "queue", "cancel", "--all", "--yes")
    running.run("operator", "dlq", "retry", status=3)
    assert documents(running, idxctl)["5"]["price"] in {"2", 2}
    letter = running.run("operator", "dlq", "list", "-o", "json").json[0]["id"]
    running.run("operator", "dlq", "show", letter)
    running.run("operator", "dlq", "purge", "--all", "--yes", "--reason", "drill")
    running.run("operator", "pause", "--reason", "drill")
    running.run("operator", "resume")
    running.run("operator", "queue", "add", "1", "2")
    assert running.run("operator", "queue", "add", "--where", "document_id > 15", "-o", "json").json["enqueued"] == 5
    running.sql("application", "UPDATE shop.items SET price = '2' WHERE id = 6")
    running.run("operator", "queue", "add", "--all")
    running.run("operator", "reindex")
    running.run("worker", "worker", "start", "--until-empty")
    acts = running.run("viewer", "audit", "list", "-o", "json").json
    assert {
        "migrate up",
        "watch install",
        "reindex",
        "reindex swap",
        "queue add",
        "queue cancel",
        "dlq retry",
        "dlq purge",
        "pause",
        "resume",
    } <= {one["action"] for one in acts}
    assert {one["database_user"] for one in acts} == {running.names["installer"], running.names["operator"]}
    running.run("installer", "watch", "status", "--exit-code")
    # Dropping a trigger takes the table's owner, whatever was granted.
    assert (
        f"belongs to {running.names['owner']}" in running.run("installer", "watch", "remove", "--yes", status=1).stderr
    )


def test_what_a_role_may_not_is_refused_with_the_right_that_is_missing(running):
    for arguments in (
        ("pause",), ("queue", "add", "1"), ("queue", "add", "--all"), ("queue", "cancel", "--all", "--yes"),
        ("dlq", "purge", "--all", "--yes"), ("reindex",), ("dlq", "show", "1"), ("worker", "start", "--until-empty"),
    ):  # fmt: skip
        if (arguments[0] == "queue" and arguments[1] == "cancel") or arguments[0] == "dlq":
            running.admin(
                "INSERT INTO idxctl.opensearch_indexing_dlq (id, index_name, document_id, action) VALUES (1, %s, '1', 'index') ON CONFLICT DO NOTHING",
                running.index,
            )
            running.admin("SELECT idxctl.opensearch_indexing_enqueue(%s, '7')", running.index)
        assert "ROLE" in running.refused("viewer", *arguments)
    assert "INSERT" in running.refused("worker", "reindex")
    assert "--operator ROLE" in running.refused("worker", "reindex")
    for arguments in (("queue", "stats"), ("worker", "start"), ("dlq", "list")):
        running.refused("application", *arguments)
    running.refused("operator", "watch", "remove", "--yes")


def test_no_role_reads_or_changes_more_than_it_needs(running):
    ours, theirs = "idxctl.opensearch_indexing_", "shop."
    for kind in ("application", "worker", "operator", "viewer"):
        for statement in (
            f"UPDATE {ours}audit SET database_user = 'x'", f"DELETE FROM {ours}audit", f"TRUNCATE {ours}audit",
            f"INSERT INTO {ours}audit (actor, action, subject) VALUES ('a', 'b', 'c')",
            f"UPDATE {ours}generations SET definition = '{{}}'", f"DELETE FROM {ours}generations",
            f"UPDATE {ours}watches SET definition = '{{}}'", f"UPDATE {ours}settings SET value = ''",
            f"INSERT INTO {ours}watches (index_name, position, table_schema, table_name, definition, fingerprint) VALUES ('', 0, '', '', '{{}}', '')",
            f"UPDATE {ours}migrations SET version = 0", f"SELECT setval('{ours}token', 1)", f"CREATE TABLE {ours}x ()",
            f"DROP TRIGGER opensearch_indexing_dlq_letter ON {ours}dlq",
        ):  # fmt: skip
            running.denied(kind, statement)
        if kind != "application":
            for table in ("items", "parts", "categories"):
                running.denied(kind, f"DELETE FROM {theirs}{table}")
            running.denied(kind, f"SELECT * FROM {theirs}secrets")
    for column in ("data", "history"):
        running.denied("viewer", f"SELECT {column} FROM {ours}dlq")
    running.denied("viewer", f"SELECT payload FROM {ours}queue")
    running.denied("viewer", f"SELECT payloads FROM {ours}inflight")
    running.denied("viewer", f"SELECT * FROM {theirs}items")
    running.denied("application", f"SELECT * FROM {ours}queue")
    running.denied(
        "worker",
        f"INSERT INTO {ours}generations (index_name, number, physical_name, state, definition, fingerprint) VALUES ('', 0, '', 'live', '{{}}', '')",
    )


def test_what_grants_prints_is_in_force_once_it_was_run(running):
    flags = [word for kind in KINDS for word in (f"--{kind}", running.names[kind])]
    for kind in ("installer", "owner"):
        made = running.run("installer", "grants", *flags, "-o", "json").json
        assert made, kind
        assert [one["statement"] for one in made if not one["held"]] == []
    assert running.run("installer", "grants", *flags).stdout.count("(in force)") == len(made)


def test_apply_grants_what_this_role_may_and_prints_the_rest(running):
    running.admin(f'REVOKE SELECT ON shop.items FROM "{running.names["worker"]}"')
    running.admin(f'REVOKE ALL ON idxctl.opensearch_indexing_queue FROM "{running.names["worker"]}"')
    done = running.run(
        "installer", "grants", "--worker", running.names["worker"], "--apply", "--yes", "-o", "json", status=3
    )
    assert ["opensearch_indexing_queue" in one["statement"] for one in done.json["applied"]] == [True]
    assert ['"shop"."items"' in one["statement"] for one in done.json["left"]] == [True]
    assert running.names["owner"] in done.stderr
    (act,) = running.run("installer", "audit", "list", "--action", "grants", "-o", "json").json
    assert act["count"] == 1
    running.run("owner", "grants", status=2)


def test_a_role_of_two_kinds_or_given_twice_is_granted_each_right_once(running):
    worker = running.names["worker"]
    running.admin(f'REVOKE ALL ON idxctl.opensearch_indexing_queue FROM "{worker}"')
    running.admin(f'REVOKE ALL ON idxctl.opensearch_indexing_pauses FROM "{worker}"')
    wanted = ("grants", "--worker", worker, "--operator", worker, "--installer", worker, "--worker", worker)
    printed = running.run("installer", *wanted, "-o", "json").json
    assert len({(one["kind"], one["statement"]) for one in printed}) == len(printed)
    done = running.run("installer", *wanted, "--apply", "--yes", "-o", "json", status=3).json
    for part in ("applied", "left"):
        statements = [one["statement"] for one in done[part]]
        assert statements
        assert len(set(statements)) == len(statements)
    noted = "SELECT detail -> 'statements' FROM idxctl.opensearch_indexing_audit WHERE action = 'grants'"
    ((detail,),) = running.admin(noted)
    assert detail == [one["statement"] for one in done["applied"]]


def test_rights_that_a_role_need_not_have_are_shown_and_never_taken(running):
    running.admin(f'GRANT ALL ON idxctl.opensearch_indexing_audit TO "{running.names["worker"]}"')
    script = running.run("installer", "grants", "--worker", running.names["worker"]).stdout
    (line,) = [one for one in script.splitlines() if "REVOKE" in one]
    assert line.startswith("-- REVOKE DELETE, ")
    running.admin(script)
    running.sql("worker", "DELETE FROM idxctl.opensearch_indexing_audit")


def test_a_role_that_policies_bind_is_told_of_bypassrls(running):
    running.admin("ALTER TABLE shop.items ENABLE ROW LEVEL SECURITY")
    script = running.run("installer", "grants", "--worker", running.names["worker"]).stdout
    assert f'ALTER ROLE "{running.names["worker"]}" BYPASSRLS;' in script
    assert "to be run as a superuser by hand" in script


def test_bypassrls_is_for_a_person_to_give_even_where_a_superuser_applies(running):
    """It holds in every database of the cluster."""
    running.admin("ALTER TABLE shop.items ENABLE ROW LEVEL SECURITY")
    worker = running.names["worker"]
    done = running.command_line("grants", "--worker", worker, "--apply", env={"IDXCTL_DATABASE_URL": running.url})
    assert done.status == 3, done.stderr
    assert "not granted: 1, to be given by a superuser by hand" in done.stderr
    assert running.admin("SELECT rolbypassrls FROM pg_roles WHERE rolname = %s", worker) == [(False,)]


def test_policies_on_our_own_tables_are_named_and_not_taken_for_tables_that_are_not_there(running):
    running.admin("ALTER TABLE idxctl.opensearch_indexing_migrations ENABLE ROW LEVEL SECURITY")
    done = running.run("worker", "worker", "start", "--until-empty", status=1)
    assert "policies hide the rows of idxctl's tables" in done.stderr


def test_a_role_that_is_not_there_is_named(bank):
    done = bank.command_line("grants", "--worker", "nobody_of_that_name", env={"IDXCTL_DATABASE_URL": bank.url})
    assert done.status == 2
    assert "there is no role nobody_of_that_name" in done.stderr


def test_before_the_tables_are_there_an_installer_alone_can_be_asked_for(bank):
    done = bank.command_line("grants", "--worker", bank.names["worker"], env={"IDXCTL_DATABASE_URL": bank.url})
    assert done.status == 4
    assert "idxctl migrate up" in done.stderr


def test_every_table_and_function_of_ours_is_one_somebody_has_decided_on(migrated):
    """A new table has no rights until somebody says whose it is."""
    with connect(DatabaseSettings(url=Secret(migrated))) as conn:
        tables = conn.execute(
            "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND relname LIKE 'opensearch\\_indexing\\_%'"
        ).fetchall()
        functions = conn.execute(
            "SELECT proname FROM pg_proc WHERE proname LIKE 'opensearch\\_indexing\\_%' AND prorettype <> 'trigger'::regtype"
        ).fetchall()
    decided = {name for kind in rights.TABLES.values() for name in kind}
    assert {row[0].removeprefix(rights.PREFIX) for row in tables} == decided
    named = {name for kind in rights.FUNCTIONS.values() for name in kind} | rights.OURS_ALONE
    assert {row[0].removeprefix(rights.PREFIX) for row in functions} == named
