"""A DLQ table of the older shape is adopted in place, and the teams' own SQL runs on it as before."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone

import psycopg
import pytest

from idxctl.config.settings import DatabaseSettings
from idxctl.core.errors import ConfigError
from idxctl.core.secret import Secret
from idxctl.indexes import generations
from idxctl.indexes.definitions import Definition
from idxctl.indexes.generations import Generation
from idxctl.postgres import migrate, migrate_down, migrate_offline, migrations
from idxctl.postgres.connect import Connection, connect
from idxctl.queue.bury import bury
from idxctl.queue.claim import Task
from idxctl.queue.outcomes import Failure
from idxctl.rebuild import swap
from support.rig import PATIENCE, until

pytestmark = pytest.mark.sampled

OLDER = """
CREATE TABLE opensearch_indexing_dlq (
    id serial PRIMARY KEY,
    listing_id integer NOT NULL,
    action varchar(20) NOT NULL,
    data jsonb,
    attempts integer DEFAULT 0,
    last_error text,
    created_at timestamp DEFAULT now(),
    last_attempt_at timestamp DEFAULT now(),
    UNIQUE (listing_id, action)
);
CREATE INDEX idx_opensearch_dlq_created_at ON opensearch_indexing_dlq (created_at);
CREATE INDEX idx_opensearch_dlq_attempts ON opensearch_indexing_dlq (attempts);
CREATE INDEX idx_opensearch_dlq_listing_id ON opensearch_indexing_dlq (listing_id);
"""
LETTERS = """
INSERT INTO opensearch_indexing_dlq (id, listing_id, action, data, attempts, last_error, created_at, last_attempt_at) VALUES
    (11, 12345, 'index', '{"price": "12,50"}', 3, 'price: not a number: "12,50"', '2026-01-02 03:04:05.678', '2026-01-02 04:00:00'),
    (12, 12346, 'index', '{"price": "13,90"}', 3, 'price: not a number: "13,90"', '2026-01-03 00:00:00', '2026-01-03 00:00:00'),
    (17, 12345, 'delete', NULL, 1, NULL, '2026-01-04 00:00:00', '2026-01-05 00:00:00');
SELECT setval('opensearch_indexing_dlq_id_seq', 17);
"""
# As teams have them in runbooks and dashboards; each must run as it stands.
STATEMENTS = {
    "latest": "SELECT listing_id, action, attempts, last_error, created_at, last_attempt_at FROM opensearch_indexing_dlq ORDER BY last_attempt_at DESC LIMIT 20;",
    "errors": "SELECT last_error, COUNT(*) AS count, MIN(created_at) AS first_seen, MAX(last_attempt_at) AS last_seen FROM opensearch_indexing_dlq GROUP BY last_error ORDER BY count DESC;",
    "total": "SELECT COUNT(*) AS total, MIN(created_at) AS oldest_task FROM opensearch_indexing_dlq;",
    "old": "DELETE FROM opensearch_indexing_dlq WHERE created_at < NOW() - INTERVAL '7 days';",
    "one": "DELETE FROM opensearch_indexing_dlq WHERE listing_id = 12345;",
    "all": "TRUNCATE opensearch_indexing_dlq;",
}
OLD_INSERT = (
    "INSERT INTO opensearch_indexing_dlq (listing_id, action, data, attempts, last_error) VALUES (%s, %s, %s, %s, %s)"
)


# What an older program writes that counts its failures of a document in one row.
OLD_UPSERT = (
    OLD_INSERT
    + """ ON CONFLICT (listing_id, action) DO UPDATE SET attempts = opensearch_indexing_dlq.attempts + 1,
          last_error = EXCLUDED.last_error, last_attempt_at = NOW()"""
)


@pytest.fixture
def conn(database):
    with connect(DatabaseSettings(url=Secret(database))) as made:
        yield made


def run(conn: Connection, script: str) -> None:
    conn.raw.execute(script)


def rows(conn: Connection, query: str, *parameters: object) -> list[tuple]:
    return conn.execute(query, parameters or None).fetchall()


def letters(conn: Connection, *columns: str) -> list[tuple]:
    return rows(conn, f"SELECT {', '.join(columns)} FROM opensearch_indexing_dlq ORDER BY id")


def shape(conn: Connection) -> list[tuple]:
    return rows(
        conn,
        """SELECT attname, format_type(atttypid, atttypmod), attnotnull FROM pg_attribute
           WHERE attrelid = 'opensearch_indexing_dlq'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY 1""",
    )


def indexes(conn: Connection) -> set[tuple]:
    found = rows(conn, "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'opensearch_indexing_dlq'")
    return {(name, definition.replace(f" {name} ", " ")) for name, definition in found}


# What is kept -------------------------------------------------------------------------------------------------------


def test_every_row_is_kept_and_assigned_to_the_index(conn):
    run(conn, OLDER + LETTERS)
    before = letters(conn, "id", "listing_id", "action", "data", "attempts", "last_error")
    done = migrate.up(conn, default_index="products")
    assert (done.adopted, done.adopted_index) == (3, "products")
    assert letters(conn, "id", "listing_id", "action", "data", "attempts", "last_error") == before
    assert letters(conn, "index_name", "document_id", "error_type", "retryable", "token", "retries", "duplicate") == [
        ("products", "12345", "legacy", True, 0, 0, False),
        ("products", "12346", "legacy", True, 0, 0, False),
        ("products", "12345", "legacy", True, 0, 0, False),
    ]


def test_errors_that_differ_in_their_values_are_one_group(conn):
    run(conn, OLDER + LETTERS)
    migrate.up(conn, default_index="products")
    (first,), (second,), (none,) = letters(conn, "fingerprint")
    assert first == second != ""
    assert none not in {"", first}  # a group too, with a name to retry or purge it by


def test_times_are_read_in_the_time_zone_of_the_session(conn):
    run(conn, OLDER + LETTERS)
    conn.execute("SET TIME ZONE 'America/Sao_Paulo'")
    migrate.up(conn, default_index="products")
    created, _, _ = letters(conn, "created_at")
    assert created[0] == datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=timezone(timedelta(hours=-3)))


def test_an_adopted_table_has_the_shape_of_a_fresh_one(conn):
    migrate.up(conn)
    fresh, fresh_indexes = shape(conn), indexes(conn)
    migrate.down(conn, to=0)
    run(conn, OLDER + LETTERS)
    migrate.up(conn, default_index="products")
    assert shape(conn) == fresh
    assert {name for name, _ in indexes(conn) - fresh_indexes} == {"opensearch_indexing_dlq_listing_id_action_key"}
    assert fresh_indexes <= indexes(conn)


def test_ids_go_on_counting_past_four_bytes(conn):
    run(conn, OLDER + LETTERS)
    migrate.up(conn, default_index="products")
    conn.execute(OLD_INSERT, (5, "index", "{}", 3, "x"))
    assert letters(conn, "id")[-1] == (18,)
    conn.execute("SELECT setval('opensearch_indexing_dlq_id_seq', 3000000000)")
    conn.execute(OLD_INSERT, (6, "index", "{}", 3, "x"))
    assert letters(conn, "id")[-1] == (3000000001,)


def test_a_table_without_rows_needs_no_index(conn):
    run(conn, OLDER)
    assert migrate.up(conn).adopted == 0
    assert migrate.status(conn).adoptable is None


def test_status_tells_of_a_table_to_adopt(conn):
    run(conn, OLDER + LETTERS)
    assert migrate.status(conn).adoptable == 3


def test_adoption_can_be_run_again(conn):
    run(conn, OLDER + LETTERS)
    migrate.up(conn, default_index="products")
    before = letters(conn, "*")
    assert migrate.up(conn, default_index="others").applied == ()
    assert letters(conn, "*") == before


def test_going_down_brings_the_older_shape_back_with_its_letters(conn):
    run(conn, OLDER + LETTERS)
    before = shape(conn), letters(conn, "id", "listing_id", "action", "data", "attempts", "last_error", "created_at")
    migrate.up(conn, default_index="products")
    assert migrate_down.plan(conn, to=0).loses == (("audit entries", 1),)  # that of the way up
    migrate.down(conn, to=0)
    names = [name for name, _, _ in before[0]]
    assert [name for name, _, _ in shape(conn)] == names
    after = shape(conn), letters(conn, "id", "listing_id", "action", "data", "attempts", "last_error", "created_at")
    assert after == before
    with pytest.raises(psycopg.errors.UniqueViolation):
        conn.raw.execute(OLD_INSERT, (12345, "index", None, 1, None))
    assert migrate.up(conn, default_index="products").adopted == 3


def test_going_down_counts_letters_that_the_older_shape_cannot_hold(conn):
    run(conn, OLDER + LETTERS)
    migrate.up(conn, default_index="products")
    conn.execute(
        """INSERT INTO opensearch_indexing_dlq (index_name, document_id, action) VALUES
           ('products', 'sku-1', 'index'), ('shops', '12', 'index'), ('products', '3000000000', 'index')"""
    )
    assert dict(migrate_down.plan(conn, to=1).loses) == {"dead letters": 3}
    migrate.down(conn, to=1, force=True)
    assert letters(conn, "id") == [(11,), (12,), (17,)]


# What it takes ------------------------------------------------------------------------------------------------------


def test_rows_without_an_index_to_belong_to_stop_the_migration(conn):
    run(conn, OLDER + LETTERS)
    before = shape(conn)
    with pytest.raises(ConfigError, match=r"public.opensearch_indexing_dlq holds 3 dead letters") as caught:
        migrate.up(conn)
    assert "adopt_index" in caught.value.hint
    assert "idxctl migrate up --adopt-index NAME" in caught.value.hint
    assert shape(conn) == before
    assert migrate.status(conn).version == 0


def test_a_table_of_another_shape_is_named_with_what_it_lacks(conn):
    run(conn, "CREATE TABLE opensearch_indexing_dlq (id int, listing_id int, payload text)")
    with pytest.raises(
        ConfigError, match="it has no column action, data, attempts, last_error, created_at, last_attempt_at"
    ):
        migrate.up(conn, default_index="products")


def test_a_column_of_another_type_is_named(conn):
    run(conn, OLDER.replace("listing_id integer", "listing_id uuid"))
    with pytest.raises(ConfigError, match=r"column listing_id uuid \(wanted smallint, integer or bigint\)"):
        migrate.up(conn, default_index="products")


def test_a_column_of_theirs_that_has_the_name_of_ours_is_named(conn):
    run(conn, OLDER + "ALTER TABLE opensearch_indexing_dlq ADD token uuid")
    with pytest.raises(ConfigError, match="has a column token of another type: uuid, wanted bigint"):
        migrate.up(conn, default_index="products")


def test_a_view_of_that_name_is_refused(conn):
    run(conn, "CREATE VIEW opensearch_indexing_dlq AS SELECT 1 AS id")
    with pytest.raises(ConfigError, match="is not a table"):
        migrate.up(conn)


@pytest.mark.parametrize(
    ("script", "named"),
    [
        ("CREATE VIEW dead AS SELECT listing_id, created_at FROM opensearch_indexing_dlq", "view dead"),
        ("CREATE MATERIALIZED VIEW dead AS SELECT created_at FROM opensearch_indexing_dlq", "view dead"),
        (
            """CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
               CREATE TRIGGER touch AFTER UPDATE OF listing_id ON opensearch_indexing_dlq
               FOR EACH ROW EXECUTE FUNCTION touch()""",
            "used in a trigger definition",
        ),
        ("CREATE INDEX days ON opensearch_indexing_dlq (date(created_at))", "IMMUTABLE"),
    ],
)
def test_what_depends_on_the_types_of_its_columns_is_named(conn, script, named):
    run(conn, OLDER + LETTERS + script)
    with pytest.raises(ConfigError, match=named) as caught:
        migrate.up(conn, default_index="products")
    assert "drop it" in caught.value.hint
    assert migrate.status(conn).adoptable == 3


# What had happened to it --------------------------------------------------------------------------------------------

ACCIDENTS = {
    "no unique constraint": "DROP CONSTRAINT opensearch_indexing_dlq_listing_id_action_key",
    "no primary key": "DROP CONSTRAINT opensearch_indexing_dlq_pkey",
    "ids without default": "ALTER COLUMN id DROP DEFAULT",
    "wide already": "ALTER COLUMN id TYPE bigint, ALTER COLUMN listing_id TYPE bigint",
    "time zones already": "ALTER COLUMN created_at TYPE timestamptz, ALTER COLUMN last_attempt_at TYPE timestamptz",
    "action as text": "ALTER COLUMN action TYPE text",
    "a column of their own": "ADD COLUMN error_class text",
    "one of ours, as it happens": "ADD COLUMN error_type text",
    "one of their own that must be filled": "ADD tenant int NOT NULL DEFAULT 7; ALTER TABLE opensearch_indexing_dlq ALTER tenant DROP DEFAULT",
    "a check": "ADD CHECK (action IN ('index', 'delete'))",
}


@pytest.mark.parametrize("accident", ACCIDENTS)
def test_what_had_happened_to_a_table_does_not_stop_its_adoption(conn, accident):
    run(conn, OLDER + LETTERS)
    conn.execute(f"ALTER TABLE opensearch_indexing_dlq {ACCIDENTS[accident]}")
    theirs = [name for name, _, _ in shape(conn)]
    before = letters(conn, "id", "listing_id", "action", "data", "attempts", "last_error")
    assert migrate.up(conn, default_index="products").adopted == 3
    assert letters(conn, "id", "listing_id", "action", "data", "attempts", "last_error") == before
    assert set(theirs) <= {name for name, _, _ in shape(conn)}
    conn.execute(
        "INSERT INTO opensearch_indexing_dlq (index_name, document_id, action) VALUES ('products', 'a', 'index')"
    )
    assert letters(conn, "id", "listing_id")[-1] == (18, None)
    assert ("opensearch_indexing_dlq_pkey",) in rows(
        conn, "SELECT conname FROM pg_constraint WHERE conrelid = 'opensearch_indexing_dlq'::regclass AND contype = 'p'"
    )


def test_lost_indexes_are_made_again(conn):
    run(conn, OLDER + "DROP INDEX idx_opensearch_dlq_created_at, idx_opensearch_dlq_attempts")
    migrate.up(conn)
    names = {name for name, _ in indexes(conn)}
    assert {"idx_opensearch_dlq_created_at", "idx_opensearch_dlq_attempts", "idx_opensearch_dlq_listing_id"} <= names


def test_a_unique_constraint_of_any_name_goes_so_that_two_indexes_may_hold_the_same_number(conn):
    run(
        conn,
        OLDER
        + """ALTER TABLE opensearch_indexing_dlq RENAME CONSTRAINT opensearch_indexing_dlq_listing_id_action_key TO once;
             CREATE UNIQUE INDEX twice ON opensearch_indexing_dlq (action, listing_id)""",
    )
    migrate.up(conn)
    for index in ("products", "shops"):
        conn.execute(
            "INSERT INTO opensearch_indexing_dlq (index_name, document_id, action) VALUES (%s, '1', 'index')", (index,)
        )
    assert letters(conn, "listing_id") == [(1,), (1,)]


def test_duplicates_are_all_kept_and_the_newest_is_the_letter(conn):
    run(
        conn,
        OLDER + "ALTER TABLE opensearch_indexing_dlq DROP CONSTRAINT opensearch_indexing_dlq_listing_id_action_key;",
    )
    run(
        conn,
        """INSERT INTO opensearch_indexing_dlq (id, listing_id, action, last_attempt_at) VALUES
           (1, 7, 'index', '2026-01-03'), (2, 7, 'index', '2026-01-05'), (3, 7, 'index', '2026-01-05'),
           (4, 7, 'index', NULL), (5, 7, 'delete', '2026-01-01')""",
    )
    conn.execute("UPDATE opensearch_indexing_dlq SET created_at = '2026-01-01'")
    migrate.up(conn, default_index="products")
    assert letters(conn, "id", "duplicate") == [(1, True), (2, True), (3, False), (4, True), (5, False)]


def test_ids_that_are_there_twice_are_told_apart(conn):
    run(conn, OLDER + LETTERS + "ALTER TABLE opensearch_indexing_dlq DROP CONSTRAINT opensearch_indexing_dlq_pkey")
    conn.execute("INSERT INTO opensearch_indexing_dlq (id, listing_id, action) VALUES (11, 99, 'index')")
    migrate.up(conn, default_index="products")
    assert letters(conn, "id", "listing_id") == [(11, 99), (12, 12346), (17, 12345), (18, 12345)]


def test_what_was_empty_is_filled(conn):
    run(conn, OLDER)
    run(
        conn,
        """INSERT INTO opensearch_indexing_dlq (listing_id, action, attempts, created_at, last_attempt_at) VALUES
           (1, 'index', NULL, NULL, '2026-01-01'), (2, 'index', 1, '2026-02-01', NULL), (3, 'index', 1, NULL, NULL)""",
    )
    migrate.up(conn, default_index="products")
    found = letters(conn, "attempts", "created_at = last_attempt_at", "created_at IS NULL")
    assert found == [(0, True, False), (1, True, False), (1, True, False)]


def test_a_sequence_that_lags_behind_is_moved(conn):
    run(conn, OLDER + LETTERS + "SELECT setval('opensearch_indexing_dlq_id_seq', 2)")
    migrate.up(conn, default_index="products")
    conn.execute(OLD_INSERT, (5, "index", "{}", 3, "x"))
    assert letters(conn, "id")[-1] == (18,)


def test_triggers_of_their_own_do_not_see_the_adoption_and_stay(conn):
    run(
        conn,
        OLDER
        + LETTERS
        + """CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN NEW.last_attempt_at := 'epoch'; RETURN NEW; END $$;
             CREATE TRIGGER touch BEFORE UPDATE ON opensearch_indexing_dlq FOR EACH ROW EXECUTE FUNCTION touch();
             CREATE TRIGGER off BEFORE UPDATE ON opensearch_indexing_dlq FOR EACH ROW EXECUTE FUNCTION touch();
             ALTER TABLE opensearch_indexing_dlq DISABLE TRIGGER off""",
    )
    migrate.up(conn, default_index="products")
    assert rows(conn, "SELECT count(*) FROM opensearch_indexing_dlq WHERE last_attempt_at < '1980-01-01'") == [(0,)]
    assert rows(conn, "SELECT tgname, tgenabled::text FROM pg_trigger WHERE tgname IN ('touch', 'off') ORDER BY 1") == [
        ("off", "D"),
        ("touch", "O"),
    ]


# SQL of their own ---------------------------------------------------------------------------------------------------


@pytest.fixture(params=["fresh", "adopted"])
def table(conn, request):
    if request.param == "adopted":
        run(conn, OLDER)
    migrate.up(conn, default_index="products")
    run(conn, LETTERS)
    conn.execute(OLD_INSERT, (12347, "index", "{}", 3, 'price: not a number: "13,90"'))
    return conn


def test_the_latest_letters_are_listed_as_before(table):
    found = rows(table, STATEMENTS["latest"])
    assert [(row[0], row[1]) for row in found] == [
        (12347, "index"),
        (12345, "delete"),
        (12346, "index"),
        (12345, "index"),
    ]


def test_errors_are_counted_as_before(table):
    assert rows(table, STATEMENTS["errors"])[0][:2] == ('price: not a number: "13,90"', 2)


def test_letters_are_counted_as_before(table):
    ((total, oldest),) = rows(table, STATEMENTS["total"])
    assert total == 4
    assert (oldest.year, oldest.month, oldest.day) == (2026, 1, 2)


@pytest.mark.parametrize(("statement", "left"), [("old", [12347]), ("one", [12346, 12347]), ("all", [])])
def test_letters_are_deleted_as_before(table, statement, left):
    table.execute(
        "UPDATE opensearch_indexing_dlq SET created_at = created_at - interval '10 years' WHERE listing_id <> 12347"
    )
    table.raw.execute(STATEMENTS[statement])
    assert [row[0] for row in letters(table, "listing_id")] == left


def test_an_older_program_goes_on_writing_letters(table):
    table.execute(OLD_INSERT, (55, "index", '{"a": 1}', 3, "bad 12"))
    assert letters(
        table, "index_name", "document_id", "listing_id", "error_type", "origin", "attempts", "fingerprint <> ''"
    )[-1] == ("products", "55", 55, "legacy", "legacy", 3, True)


def test_an_older_program_that_names_an_id_and_times_goes_on_too(table):
    table.raw.execute(
        "INSERT INTO opensearch_indexing_dlq (id, listing_id, action, created_at) VALUES (900, 56, 'delete', '2026-01-01 00:00')"
    )
    assert letters(table, "id", "document_id")[-1] == (900, "56")


def test_an_older_program_without_an_index_to_write_for_is_told(conn):
    migrate.up(conn)
    with pytest.raises(psycopg.errors.NotNullViolation, match="which index the older program's letters belong to"):
        conn.raw.execute(OLD_INSERT, (1, "index", None, 1, None))
    migrate.up(conn, default_index="products")
    conn.raw.execute(OLD_INSERT, (1, "index", None, 1, None))


def test_where_the_constraint_was_lost_an_older_program_may_insert_again(conn):
    run(
        conn,
        OLDER + "ALTER TABLE opensearch_indexing_dlq DROP CONSTRAINT opensearch_indexing_dlq_listing_id_action_key",
    )
    migrate.up(conn, default_index="products")
    for error in ("first", "second"):
        conn.execute(OLD_INSERT, (1, "index", None, 1, error))
    assert letters(conn, "last_error", "duplicate") == [("first", True), ("second", False)]


def test_an_error_changed_by_an_older_program_changes_its_group(table):
    table.execute("UPDATE opensearch_indexing_dlq SET last_error = 'other 1' WHERE listing_id = 12346")
    ((mine,), (other,)) = rows(
        table, "SELECT fingerprint FROM opensearch_indexing_dlq WHERE listing_id IN (12346, 12347) ORDER BY id"
    )
    assert mine != other


def test_an_older_program_needs_no_rights_on_our_other_tables(table):
    run(
        table,
        """CREATE ROLE older_program; GRANT INSERT ON opensearch_indexing_dlq TO older_program;
           GRANT USAGE ON SEQUENCE opensearch_indexing_dlq_id_seq TO older_program; GRANT USAGE ON SCHEMA public TO older_program""",
    )
    try:
        with table.raw.transaction():
            table.execute("SET LOCAL ROLE older_program")
            table.execute(OLD_INSERT, (57, "index", None, 1, None))
        assert letters(table, "index_name", "document_id")[-1] == ("products", "57")
    finally:
        run(table, "DROP OWNED BY older_program; DROP ROLE older_program")


# Older programs that upsert ----------------------------------------------------------------------------------------------


@pytest.fixture
def adopted(conn):
    run(conn, OLDER + LETTERS)
    migrate.up(conn, default_index="products")
    return conn


def upsert(conn: Connection, listing: int, error: str, action: str = "index") -> None:
    conn.raw.execute(OLD_UPSERT, (listing, action, None, 3, error))


def dead(conn: Connection, index: str, document: str, *, token: int = 7, **letter: object) -> None:
    """Bury a task as a worker does."""
    now = datetime.now(timezone.utc)
    task = Task(document, "index", 0, 3, now, "api", "", {"letter": letter} if letter else {})
    failure = Failure(task, "mapper_parsing_exception", "abcdef", "ours", permanent=True)
    with conn.transaction():
        bury(conn, index, token, [failure])


def letter_of(conn: Connection, document: str, *columns: str) -> list[tuple]:
    columns = columns or ("index_name", "listing_id", "attempts", "last_error")
    query = f"SELECT {', '.join(columns)} FROM opensearch_indexing_dlq WHERE document_id = %s AND action = 'index' ORDER BY id"
    return rows(conn, query, document)


def test_an_older_program_goes_on_upserting_letters(adopted):
    upsert(adopted, 12345, "still bad")
    assert letter_of(adopted, "12345", "id", "attempts", "last_error") == [(11, 4, "still bad")]
    for error in ("first", "second"):
        upsert(adopted, 55, error)
    assert letter_of(adopted, "55") == [("products", 55, 4, "second")]
    assert letter_of(adopted, "55", "error_type", "duplicate", "last_attempt_at >= created_at") == [
        ("legacy", False, True)
    ]
    upsert(adopted, 55, "gone", "delete")
    assert len(letters(adopted, "id")) == 5


def test_an_older_program_that_names_the_constraint_goes_on_upserting(adopted):
    named = OLD_UPSERT.replace(
        "(listing_id, action) DO", "ON CONSTRAINT opensearch_indexing_dlq_listing_id_action_key DO"
    )
    adopted.raw.execute(named, (12345, "index", None, 1, "again"))
    assert letter_of(adopted, "12345", "attempts") == [(4,)]


def test_letters_of_ours_and_of_an_older_program_meet_in_one(adopted):
    dead(adopted, "products", "12345")
    assert letter_of(adopted, "12345", "id", "listing_id", "token", "last_error") == [(11, 12345, 7, "ours")]
    upsert(adopted, 12345, "theirs 1")
    found = letter_of(adopted, "12345", "id", "token", "attempts", "last_error", "error_type")
    assert found == [(11, 7, 4, "theirs 1", "legacy")]
    assert letter_of(adopted, "12345", "fingerprint = opensearch_indexing_dlq_group('theirs 2')") == [(True,)]
    dead(adopted, "products", "12345", token=8)
    assert letter_of(adopted, "12345", "id", "token", "fingerprint", "error_type") == [
        (11, 8, "abcdef", "mapper_parsing_exception")
    ]


def test_equal_ids_of_two_indexes_are_two_letters_and_an_upsert_takes_the_older_programs(adopted):
    dead(adopted, "shops", "12345")
    dead(adopted, "shops", "9")
    dead(adopted, "products", "9")
    upsert(adopted, 12345, "theirs")
    upsert(adopted, 9, "theirs")
    assert letter_of(adopted, "12345") == [("products", 12345, 4, "theirs"), ("shops", None, 3, "ours")]
    assert letter_of(adopted, "9") == [("shops", None, 3, "ours"), ("products", 9, 4, "theirs")]
    adopted.raw.execute(STATEMENTS["one"])  # a listing is a listing, no shop of its number
    assert letter_of(adopted, "12345") == [("shops", None, 3, "ours")]


def test_a_letter_that_is_retried_and_fails_again_is_itself_again(adopted):
    adopted.execute("DELETE FROM opensearch_indexing_dlq WHERE id = 11")
    dead(adopted, "products", "12345", id=11, retries=1)
    upsert(adopted, 12345, "theirs")
    assert letter_of(adopted, "12345", "id", "listing_id", "retries", "attempts") == [(11, 12345, 1, 4)]


def test_a_letter_retried_while_an_older_program_wrote_another_joins_that(adopted):
    adopted.execute("DELETE FROM opensearch_indexing_dlq WHERE id = 11")
    upsert(adopted, 12345, "theirs")
    dead(adopted, "products", "12345", id=11, retries=1)
    assert letter_of(adopted, "12345", "id", "retries", "last_error") == [(18, 1, "ours")]


def test_ids_that_are_no_plain_number_do_not_clash_with_listings(adopted):
    for document in ("012345", "12345 ", "1e4"):
        dead(adopted, "products", document)
        assert letter_of(adopted, document, "listing_id") == [(None,)]


def test_without_an_index_the_constraint_waits_until_one_is_named(conn):
    run(conn, OLDER)
    migrate.up(conn)
    for index in ("shops", "products"):
        dead(conn, index, "1")
    assert letters(conn, "index_name", "listing_id") == [("shops", 1), ("products", 1)]
    migrate.up(conn, default_index="products")
    assert letters(conn, "index_name", "listing_id") == [("shops", None), ("products", 1)]
    upsert(conn, 1, "theirs")
    assert letter_of(conn, "1") == [("shops", None, 3, "ours"), ("products", 1, 4, "theirs")]
    migrate.up(conn, default_index="products")


def test_the_migration_run_again_leaves_the_constraint_as_it_is(adopted):
    run(adopted, migrations.known()[1].up)
    upsert(adopted, 12345, "theirs")
    assert letter_of(adopted, "12345") == [("products", 12345, 4, "theirs")]


def test_a_script_for_a_dba_names_the_index_later_too(conn):
    run(conn, OLDER)
    migrate.up(conn, to=2)
    run(conn, migrate_offline.offline_sql(from_=2, default_index="products"))
    upsert(conn, 1, "theirs")
    upsert(conn, 1, "theirs")
    assert letter_of(conn, "1") == [("products", 1, 4, "theirs")]


@pytest.mark.parametrize("fresh", [True, False])
def test_a_table_that_had_no_such_constraint_gets_none(conn, fresh):
    if not fresh:
        run(
            conn,
            OLDER + "ALTER TABLE opensearch_indexing_dlq DROP CONSTRAINT opensearch_indexing_dlq_listing_id_action_key",
        )
    migrate.up(conn, default_index="products")
    for index in ("shops", "products"):
        dead(conn, index, "1")
    assert letters(conn, "index_name", "listing_id") == [("shops", 1), ("products", 1)]
    with pytest.raises(psycopg.errors.InvalidColumnReference):
        upsert(conn, 1, "theirs")


def test_actions_that_differ_in_their_case_alone_are_duplicates(conn):
    run(conn, OLDER + LETTERS)
    conn.execute(OLD_INSERT, (12345, "INDEX", None, 1, "x"))
    migrate.up(conn, default_index="products")
    assert letters(conn, "duplicate") == [(True,), (False,), (False,), (False,)]
    dead(conn, "shops", "12345")
    migrate.down(conn, to=0, force=True)
    assert letters(conn, "id") == [(11,), (12,), (17,), (18,)]


def test_going_down_and_up_again_keeps_upserts_working(adopted):
    dead(adopted, "shops", "12346")
    dead(adopted, "products", "12346")
    assert dict(migrate_down.plan(adopted, to=1).loses) == {"dead letters": 1}
    migrate.down(adopted, to=1, force=True)
    upsert(adopted, 12346, "theirs")
    assert letters(adopted, "listing_id", "attempts") == [(12345, 3), (12346, 4), (12345, 1)]
    migrate.up(adopted, default_index="products")
    upsert(adopted, 12346, "theirs")
    assert letter_of(adopted, "12346") == [("products", 12346, 5, "theirs")]


def test_going_down_without_an_index_keeps_the_newest_letter_of_a_number(conn):
    run(conn, OLDER)
    migrate.up(conn)
    for index in ("shops", "products"):
        dead(conn, index, "1")
    assert dict(migrate_down.plan(conn, to=1).loses) == {"dead letters": 1}
    migrate.down(conn, to=1, force=True)
    assert letters(conn, "id", "listing_id") == [(2, 1)]


# Waits in an index whose entry is made after the look for a conflict, and before the entries of ours.
SLOW_INDEX = """
CREATE FUNCTION held(document text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF current_setting('test.held', true) = 'yes' THEN
        PERFORM pg_advisory_xact_lock_shared(4711);
    END IF;
    RETURN document;
END $$;
CREATE INDEX held ON opensearch_indexing_dlq (held(document_id));
ALTER TABLE opensearch_indexing_dlq DROP CONSTRAINT opensearch_indexing_dlq_listing_id_action_key;
DROP INDEX opensearch_indexing_dlq_letter;
CREATE UNIQUE INDEX opensearch_indexing_dlq_letter ON opensearch_indexing_dlq (index_name, document_id, action) WHERE NOT duplicate;
ALTER TABLE opensearch_indexing_dlq ADD CONSTRAINT opensearch_indexing_dlq_listing_id_action_key UNIQUE (listing_id, action);
"""


def refusing_generation(conn: Connection, *documents: str) -> Generation:
    """A building generation of products that refused *documents*, under token 5."""
    definition = Definition("", ("id",), ("bigint",), "jsonb", {}, {})
    with conn.transaction():
        made = generations.register(conn, "products", 1, definition)
    for document in documents:
        conn.execute(
            "INSERT INTO opensearch_indexing_generation_failures VALUES (%s, %s, 'index', 5, 'mapper_parsing_exception', 'abcdef', 'ours')",
            (made.id, document),
        )
    return made


def swapped(conn: Connection, new: Generation) -> int:
    return swap.record(conn, 0, new=new, old=None, keep=timedelta(0))


@pytest.mark.parametrize("ours", ["burial", "swap"])
@pytest.mark.parametrize("other", ["older program", "worker"])
def test_a_letter_that_another_writes_at_the_same_instant_is_met_at_the_second_look(adopted, database, ours, other):
    run(adopted, SLOW_INDEX)
    new = refusing_generation(adopted, "55")
    with connect(DatabaseSettings(url=Secret(database))) as slow, ThreadPoolExecutor(1) as thread:
        slow.execute("SET test.held = 'yes'")
        adopted.execute("BEGIN; SELECT pg_advisory_xact_lock(4711)")
        if ours == "swap":
            writing = thread.submit(swapped, slow, new)
        else:
            writing = thread.submit(dead, slow, "products", "55", token=5)
        until(
            lambda: rows(adopted, "SELECT FROM pg_locks WHERE objid = 4711 AND NOT granted"),
            "the insert is not held up",
        )
        with connect(DatabaseSettings(url=Secret(database))) as quick:
            if other == "worker":
                dead(quick, "products", "55", token=4)
            else:
                upsert(quick, 55, "theirs")
        adopted.execute("COMMIT")
        writing.result(timeout=PATIENCE)
    assert letter_of(adopted, "55", "token", "last_error", "listing_id") == [(5, "ours", 55)]


def test_what_a_new_generation_refused_meets_the_older_programs_letter(adopted):
    assert swapped(adopted, refusing_generation(adopted, "12345", "77")) == 2
    upsert(adopted, 77, "theirs")
    assert letter_of(adopted, "12345", "id", "last_error") == [(11, "ours")]
    assert letter_of(adopted, "77") == [("products", 77, 2, "theirs")]


@pytest.mark.parametrize(
    ("document_id", "number"),
    [
        ("12345", 12345),
        ("0", 0),
        ("-7", -7),
        ("9223372036854775807", 9223372036854775807),
        ("-9223372036854775808", -9223372036854775808),
        ("9223372036854775808", None),
        ("12345678901234567890", None),
        ("007", None),
        ("-0", None),
        ("1e3", None),
        (" 1", None),
        ("1\n", None),
        ("sku-1", None),
        ("", None),
    ],
)
def test_listing_id_is_the_document_where_that_is_a_number(migrated, document_id, number):
    with connect(DatabaseSettings(url=Secret(migrated))) as conn:
        conn.execute(
            "INSERT INTO opensearch_indexing_dlq (index_name, document_id, action) VALUES ('products', %s, 'index')",
            (document_id,),
        )
        assert letters(conn, "document_id", "listing_id") == [(document_id, number)]


def test_one_letter_a_document_and_action(migrated):
    with connect(DatabaseSettings(url=Secret(migrated))) as conn:
        query = """INSERT INTO opensearch_indexing_dlq (index_name, document_id, action, last_error) VALUES ('i', 'a', 'index', %s)
                   ON CONFLICT (index_name, document_id, action) WHERE NOT duplicate DO UPDATE SET last_error = excluded.last_error"""
        for error in ("one", "two"):
            conn.execute(query, (error,))
        assert letters(conn, "last_error") == [("two",)]
