"""Nobody becomes idxctl's owner, or its worker: rights, relations, search paths, and look-alikes of all that our SQL calls."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from idxctl.config.settings import DatabaseSettings
from idxctl.core.errors import ConfigError, PostgresRefused
from idxctl.core.secret import Secret
from idxctl.postgres import migrate, migrate_offline
from idxctl.postgres.connect import connect

pytestmark = pytest.mark.sampled

PINNED = ["search_path=pg_catalog, pg_temp"]


@pytest.fixture
def settings(database):
    return DatabaseSettings(url=Secret(database))


@pytest.fixture
def conn(settings):
    with connect(settings) as made:
        yield made


@pytest.fixture
def stranger(database, unique_name):
    """A session of a role that may connect, and has been granted nothing."""
    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'x'").format(sql.Identifier(unique_name)))
    with psycopg.connect(make_conninfo(database, user=unique_name, password="x"), autocommit=True) as mine:
        yield mine
    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(sql.Identifier(unique_name)))


def functions(conn):
    return conn.execute(
        """SELECT p.proname, p.prosecdef, coalesce(p.proconfig, '{}'),
                  EXISTS (SELECT FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS a
                          WHERE a.grantee = 0 AND a.privilege_type = 'EXECUTE')
           FROM pg_proc p WHERE p.pronamespace = %s::regnamespace AND p.proname LIKE 'opensearch%%'""",
        (conn.schema,),
    ).fetchall()


# Rights --------------------------------------------------------------------------------------------------------------


def test_no_function_is_for_everybody_and_each_resolves_names_in_pg_catalog_alone(conn):
    migrate.up(conn)
    found = functions(conn)
    assert len(found) >= 7
    assert [name for name, _, _, public in found if public] == []
    strings = "standard_conforming_strings=on"  # of those whose body holds a backslash
    assert [(name, path) for name, _, path, _ in found if [one for one in path if one != strings] != PINNED] == []


def test_an_upgrade_takes_rights_from_everybody_and_leaves_them_to_those_who_write(conn, stranger):
    migrate.up(conn, to=2)
    conn.execute("CREATE TABLE goods (id int PRIMARY KEY)")
    role = sql.Identifier(stranger.info.user)
    conn.execute(sql.SQL("GRANT USAGE ON SCHEMA public TO {0}; GRANT INSERT ON goods TO {0}").format(role))
    conn.execute(
        "INSERT INTO opensearch_indexing_watches (index_name, position, table_schema, table_name, definition, fingerprint) "
        "VALUES ('goods', 0, 'public', 'goods', '{}', '')"
    )
    migrate.up(conn)
    assert not any(public for *_, public in functions(conn))
    stranger.execute("SELECT opensearch_indexing_enqueue('goods', '1')")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        stranger.execute("SELECT opensearch_indexing_server()")


def test_a_stranger_makes_no_trigger_of_our_functions(conn, stranger):
    migrate.up(conn)
    stranger.execute("CREATE TEMP TABLE bait (n int)")
    for name, *_ in functions(conn):
        with pytest.raises((psycopg.errors.InsufficientPrivilege, psycopg.errors.UndefinedFunction)):
            stranger.execute(
                sql.SQL("CREATE TRIGGER t BEFORE INSERT ON bait FOR EACH ROW EXECUTE FUNCTION {}()").format(
                    sql.Identifier("public", name)
                )
            )


def test_what_fills_in_letters_looks_at_no_row_of_another_table(conn, stranger):
    """Also where somebody was granted it after all: a column of a private type would run a private cast."""
    migrate.up(conn)
    conn.execute("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO PUBLIC; CREATE TABLE sprung (by text)")
    conn.execute("GRANT INSERT ON sprung TO PUBLIC")
    stranger.execute(
        """
        CREATE TYPE pg_temp.lure AS (n int);
        CREATE FUNCTION pg_temp.spring(pg_temp.lure) RETURNS text LANGUAGE plpgsql AS $$
        BEGIN INSERT INTO public.sprung VALUES (current_user); RETURN '1'; END $$;
        CREATE CAST (pg_temp.lure AS text) WITH FUNCTION pg_temp.spring(pg_temp.lure) AS IMPLICIT;
        CREATE TEMP TABLE opensearch_indexing_dlq (index_name pg_temp.lure, document_id pg_temp.lure, listing_id pg_temp.lure,
            action varchar(20), attempts int, created_at timestamptz, last_attempt_at timestamptz, error_type text, origin text,
            fingerprint text, last_error pg_temp.lure, token bigint);
        CREATE TRIGGER t BEFORE INSERT ON pg_temp.opensearch_indexing_dlq FOR EACH ROW
            EXECUTE FUNCTION public.opensearch_indexing_dlq_fill();
        """
    )
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="dead letters alone"):
        stranger.execute(
            "INSERT INTO pg_temp.opensearch_indexing_dlq VALUES (ROW(1), ROW(1), ROW(1), 'index', 0, now(), now(), '', '', '', ROW(1), 0)"
        )
    assert conn.execute("SELECT by FROM sprung").fetchall() == []


def test_an_older_program_writes_letters_without_a_right_on_any_function(conn, stranger):
    migrate.up(conn, default_index="listings")
    role = sql.Identifier(stranger.info.user)
    conn.execute(
        sql.SQL(
            "GRANT USAGE ON SCHEMA public TO {0}; GRANT SELECT, INSERT, UPDATE, DELETE ON opensearch_indexing_dlq TO {0}; "
            "GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {0}"
        ).format(role)
    )
    stranger.execute(
        "INSERT INTO opensearch_indexing_dlq (listing_id, action, last_error) VALUES (12345, 'index', 'no')"
    )
    stranger.execute("UPDATE opensearch_indexing_dlq SET last_error = 'still' WHERE listing_id = 12345")
    found = conn.execute(
        "SELECT index_name, document_id, listing_id, origin, fingerprint <> '' FROM opensearch_indexing_dlq"
    )
    assert found.fetchall() == [("listings", "12345", 12345, "legacy", True)]


def test_rights_that_came_by_default_make_nobody_the_owner(conn, stranger):
    """GRANT ALL, as an application's role often has it: its trigger on the queue would run with the owner's rights."""
    role = sql.Identifier(stranger.info.user)
    conn.execute(sql.SQL("ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON TABLES TO {}").format(role))
    trap = """
        CREATE TEMP TABLE bait (id int);
        CREATE FUNCTION pg_temp.spring() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
        CREATE TRIGGER spring BEFORE INSERT ON public.opensearch_indexing_queue FOR EACH ROW EXECUTE FUNCTION pg_temp.spring()
    """
    migrate.up(conn)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        stranger.execute(trap)
    (warning,) = migrate.status(conn).warnings
    assert (
        f"{stranger.info.user} has UPDATE on opensearch_indexing_generations (workers run what stands there)" in warning
    )
    assert "TRIGGER" not in warning
    conn.execute(sql.SQL("GRANT ALL ON ALL TABLES IN SCHEMA public TO {}").format(role))
    (warning,) = migrate.status(conn).warnings
    assert "TRIGGER" in warning
    conn.execute(sql.SQL("REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {}").format(role))
    assert migrate.status(conn).warnings == ()


def test_nobody_moves_the_tokens_to_their_end(conn):
    """A worker may move them forward; at the end of the sequence nothing could be claimed any more."""
    migrate.up(conn)
    for past in (2**63 - 2, 2**62 + 1):
        with pytest.raises(PostgresRefused, match="more than half of all tokens"):
            conn.execute(f"SELECT opensearch_indexing_advance_token({past}, 'far')".encode())
    conn.execute("SELECT opensearch_indexing_advance_token(4611686018427387904, 'as far as it goes')")
    assert conn.execute("SELECT nextval('opensearch_indexing_token')").fetchone() > (2**62,)


# The schema ----------------------------------------------------------------------------------------------------------


def test_a_schema_where_everybody_may_create_is_refused_with_two_ways_out(conn, settings):
    """PostgreSQL 14's public, and that of every database upgraded from there."""
    conn.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
    with pytest.raises(ConfigError, match="everybody may create functions in schema public") as refused:
        migrate.up(conn)
    assert 'REVOKE CREATE ON SCHEMA "public" FROM PUBLIC' in refused.value.hint
    assert '[database] schema = "idxctl"' in refused.value.hint
    assert conn.execute("SELECT count(*) FROM pg_class WHERE relname LIKE 'opensearch%'").fetchone() == (0,)
    with connect(DatabaseSettings(url=settings.url, schema="idxctl")) as own:
        assert migrate.up(own).notes == ()
    conn.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    assert migrate.up(conn).version > 0


def test_an_installation_there_is_upgraded_all_the_same_and_says_so(conn):
    migrate.up(conn, to=2)
    conn.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
    assert "everybody may create functions in schema public" in " ".join(migrate.up(conn).notes)
    assert any("everybody may create" in warning for warning in migrate.status(conn).warnings)


def test_what_a_stranger_left_in_the_schema_is_found_before_it_is_called(conn, stranger):
    conn.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
    stranger.execute("CREATE FUNCTION public.sign(integer) RETURNS integer LANGUAGE sql AS 'SELECT 0'")
    stranger.execute("CREATE FUNCTION public.harmless() RETURNS integer LANGUAGE sql AS 'SELECT 0'")
    stranger.execute("CREATE TABLE public.opensearch_indexing_queue ()")
    conn.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    with pytest.raises(ConfigError, match=r"function sign of .*, table opensearch_indexing_queue of ") as refused:
        migrate.up(conn)
    assert "harmless" not in refused.value.message


def test_other_roles_that_may_create_there_are_named(conn, stranger):
    role = sql.Identifier(stranger.info.user)
    conn.execute(sql.SQL("GRANT CREATE ON SCHEMA public TO {}").format(role))
    assert any(stranger.info.user in note for note in migrate.up(conn).notes)


# What is missing ------------------------------------------------------------------------------------------------------


def test_what_somebody_dropped_is_named_and_made_again(conn):
    migrate.up(conn)
    assert migrate.status(conn).missing == ()
    conn.execute("DROP TABLE opensearch_indexing_queue; DROP INDEX idx_opensearch_dlq_attempts")
    conn.execute("DROP TRIGGER opensearch_indexing_dlq_letter ON opensearch_indexing_dlq")
    conn.execute("DROP FUNCTION opensearch_indexing_server()")
    missing = set(migrate.status(conn).missing)
    assert missing >= {
        "table opensearch_indexing_queue", "index opensearch_indexing_queue_claim", "index idx_opensearch_dlq_attempts",
        "trigger opensearch_indexing_dlq_letter", "function opensearch_indexing_server",
    }  # fmt: skip
    (note,) = migrate.up(conn).notes
    assert "table opensearch_indexing_queue" in note or "missing in schema" in note
    assert "migrate up --repair" in note
    assert migrate.up(conn, repair=True).notes == ()
    assert migrate.status(conn).missing == ()
    assert not any(public for *_, public in functions(conn))


def test_a_publication_of_every_table_is_warned_of_and_the_owner_named(conn):
    conn.execute("CREATE PUBLICATION everything FOR ALL TABLES")
    assert any("publication everything is FOR ALL TABLES" in note for note in migrate.up(conn).notes)
    assert migrate.status(conn).owner == conn.raw.info.user


def test_the_script_is_refused_by_who_does_not_own_the_tables(conn, stranger):
    migrate.up(conn, to=2)
    conn.execute(sql.SQL("GRANT ALL ON SCHEMA public TO {0}").format(sql.Identifier(stranger.info.user)))
    conn.execute(
        sql.SQL("GRANT ALL ON opensearch_indexing_migrations TO {0}").format(sql.Identifier(stranger.info.user))
    )
    with pytest.raises(psycopg.errors.RaiseException, match=f"belong to {conn.raw.info.user}"):
        stranger.execute(migrate_offline.offline_sql(from_=2).encode())


def test_the_script_is_refused_where_everybody_may_create(conn):
    conn.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
    with pytest.raises(psycopg.errors.RaiseException, match="everybody may create functions in schema public"):
        conn.raw.execute(migrate_offline.offline_sql().encode())


def test_a_worker_that_starts_there_says_so(items, idxctl):
    items.sql("GRANT CREATE ON SCHEMA public TO PUBLIC")
    idxctl.use(database=items.database, opensearch=items.opensearch, config=items.config)
    done = idxctl("worker", "start", "--until-empty")
    assert done.status == 0
    assert "everybody may create functions in schema public" in done.stderr
