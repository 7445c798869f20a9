"""The library over SQLAlchemy and Django, their own transactions, with real ones of both."""

import asyncio
import contextlib
import sys
import textwrap

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, scoped_session, sessionmaker

from idxctl import Indexer, SchemaError, UsageError, WrongType


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


@pytest.fixture
def indexer(untriggered):
    with Indexer(untriggered.settings) as made:
        yield made


@pytest.fixture(params=["psycopg", "pg8000"])
def engine(untriggered, request):
    url = sa.make_url(untriggered.database).set(drivername=f"postgresql+{request.param}")
    made = sa.create_engine(url)
    yield made
    made.dispose()


def name_of(rig, item):
    return rig.document(item)["name"]


# SQLAlchemy -----------------------------------------------------------------------------------------------------------


def test_a_session_takes_the_task_along_and_indexes_after_its_commit(untriggered, indexer, engine):
    with Session(engine) as session:
        session.get_one(Item, 1).name = "one"
        indexer.index(untriggered.index, 1, connection=session)
        session.get_one(Item, 2).name = "two"
        indexer.index(untriggered.index, 2, connection=session)
        assert untriggered.queued() == 0
        session.commit()
        assert (name_of(untriggered, 1), name_of(untriggered, 2)) == ("one", "two")
        assert indexer.counters["sync"].batches == 1
        session.get_one(Item, 3).name = "never"
        indexer.index(untriggered.index, 3, connection=session)
        session.rollback()
        with session.begin_nested():
            session.get_one(Item, 4).name = "four"
            indexer.index(untriggered.index, 4, connection=session)
        assert name_of(untriggered, 4) == "item 4"  # a savepoint's end is no commit
        session.commit()
    assert name_of(untriggered, 3) == "item 3"
    assert name_of(untriggered, 4) == "four"
    assert untriggered.at_rest()
    assert untriggered.differences() == []


def test_a_bare_connection_within_a_transaction_of_ours(untriggered, indexer, engine):
    update = sa.update(Item).where(Item.id == 1)
    with engine.connect() as connection:
        with indexer.transaction(connection):
            connection.execute(update.values(name="one"))
            indexer.index(untriggered.index, 1, connection=connection)
        assert name_of(untriggered, 1) == "one"
        with contextlib.suppress(ZeroDivisionError), indexer.transaction(connection):
            connection.execute(update.values(name="never"))
            indexer.index(untriggered.index, 1, connection=connection)
            raise ZeroDivisionError
        assert untriggered.queued() == 0
        indexer.index(untriggered.index, 2, connection=connection)  # opens a transaction, as any statement does
        assert untriggered.queued() == 0
        connection.commit()
        assert untriggered.queued() == 1  # whose commit nobody tells us of


def test_a_connection_in_autocommit_is_indexed_at_once(untriggered, indexer, engine):
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.update(Item).where(Item.id == 1).values(name="at once"))
        indexer.index(untriggered.index, 1, connection=connection)
        assert name_of(untriggered, 1) == "at once"


def test_a_failure_of_ours_leaves_the_session_alive(untriggered, indexer, engine):
    untriggered.sql("ALTER FUNCTION opensearch_indexing_enqueue RENAME TO away")
    with Session(engine) as session:
        session.get_one(Item, 1).name = "kept"
        session.flush()
        with pytest.raises(SchemaError, match="not migrated"):
            indexer.index(untriggered.index, 1, connection=session)
        session.commit()
    assert untriggered.one("SELECT name FROM items WHERE id = 1") == "kept"


def test_asynchronous_over_a_scoped_session(untriggered, indexer, engine):
    indexer.enable_async(workers=1)
    sessions = scoped_session(sessionmaker(engine))
    sessions.get_one(Item, 1).name = "one"
    indexer.index_many(untriggered.index, [1], connection=sessions)
    sessions.commit()
    sessions.remove()
    indexer.wait_for([1], 30, index=untriggered.index)
    assert name_of(untriggered, 1) == "one"


def test_an_asynchronous_session_of_sqlalchemy_by_run_sync(untriggered, indexer):
    url = sa.make_url(untriggered.database).set(drivername="postgresql+psycopg")

    async def work():
        engine = create_async_engine(url)
        async with engine.begin() as connection:
            with pytest.raises(WrongType, match="AsyncConnection of SQLAlchemy") as caught:
                indexer.index(untriggered.index, 1, connection=connection)
            assert "run_sync" in caught.value.hint
            await connection.run_sync(lambda inner: indexer.index(untriggered.index, 1, connection=inner))
        await engine.dispose()

    asyncio.run(work())
    assert untriggered.queued() == 1


def test_connections_that_cannot_be_meant(untriggered, indexer):
    import sqlite3

    lite = sa.create_engine("sqlite://")
    with lite.connect() as connection, pytest.raises(WrongType, match="to sqlite, not to PostgreSQL"):
        indexer.index(untriggered.index, 1, connection=connection)
    with (
        contextlib.closing(sqlite3.connect(":memory:")) as connection,
        pytest.raises(WrongType, match=r"sqlite3\.Connection"),
    ):
        indexer.index(untriggered.index, 1, connection=connection)
    with pytest.raises(UsageError, match="a session needs no transaction"), indexer.transaction(Session(lite)):
        pass


# Django ---------------------------------------------------------------------------------------------------------------

DJANGO = """
    import sys
    from django.conf import settings
    from django.db import connection, connections, transaction

    database, config = sys.argv[1:]
    settings.configure(DATABASES={"default": parsed(database), "other": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}})

    import django
    django.setup()
    from idxctl import Indexer, SchemaError, UsageError, WrongType

    indexer = Indexer.from_config(config)
    (index,) = indexer.settings.indexes

    def rename(item, name):
        with connection.cursor() as cursor:
            cursor.execute("UPDATE items SET name = %s WHERE id = %s", [name, item])

    def queued():
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM opensearch_indexing_queue")
            return cursor.fetchone()[0]

    rename(1, "at once")                                  # in autocommit
    indexer.index(index, 1, connection=connection)
    assert indexer.counters["sync"].indexed == 1

    with transaction.atomic():                            # after the commit, together
        for item in (2, 3):
            rename(item, "atomic")
            indexer.index(index, item, connection=connections["default"])
        assert indexer.counters["sync"].indexed == 1
    assert indexer.counters["sync"].indexed == 3
    assert indexer.counters["sync"].batches == 2

    try:
        with transaction.atomic():                        # never after a rollback
            rename(4, "never")
            indexer.index(index, 4, connection=connection)
            raise ZeroDivisionError
    except ZeroDivisionError:
        pass
    assert queued() == 0

    with transaction.atomic():                            # an inner block that fails takes its own along
        try:
            with transaction.atomic():
                indexer.index(index, 5, connection=connection)
                raise ZeroDivisionError
        except ZeroDivisionError:
            pass
        rename(6, "outer")
        indexer.index(index, 6, connection=connection)
    assert queued() == 0
    assert indexer.counters["sync"].indexed == 4

    indexer.enable_async(workers=1)
    with transaction.atomic():
        rename(7, "asynchronous")
        indexer.index(index, 7, connection=connection)
    indexer.wait_for([7], 30, index=index)
    indexer.disable_async()

    for wrong in (connections["other"], connections):
        try:
            indexer.index(index, 1, connection=wrong)
        except WrongType as error:
            print(error)
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("ALTER FUNCTION opensearch_indexing_enqueue RENAME TO away")
        try:
            indexer.index(index, 1, connection=connection)
        except SchemaError as error:
            print(type(error).__name__)
        rename(8, "kept")
    indexer.shutdown()
"""

PARSED = """
    from urllib.parse import urlsplit

    def parsed(url):
        parts = urlsplit(url)
        return {"ENGINE": "django.db.backends.postgresql", "NAME": parts.path[1:], "USER": parts.username,
                "PASSWORD": parts.password or "", "HOST": parts.hostname, "PORT": parts.port}
"""


def test_django_in_autocommit_in_atomic_blocks_and_after_rollbacks(untriggered, idxctl, tmp_path):
    """In a process of its own: Django is configured once a process."""
    import subprocess

    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PARSED) + textwrap.dedent(DJANGO))
    idxctl.use(database=untriggered.database, opensearch=untriggered.opensearch)
    done = subprocess.run(
        [sys.executable, "-W", "error", program, untriggered.database, untriggered.config],
        env=idxctl.environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "connection 'other' is one to sqlite, not to PostgreSQL",
        "connection is a ConnectionHandler of Django; one of django.db.connections is needed",
        "SchemaError",
    ]
    assert untriggered.differences(but=[8]) == []
    assert name_of(untriggered, 7) == "asynchronous"
    assert untriggered.one("SELECT name FROM items WHERE id = 8") == "kept"
