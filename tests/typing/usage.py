"""
How an application uses the library, for ``mypy --strict`` (`make check`); never run.

Lines with ``type: ignore`` must be errors: an ignore that is not needed is one.
"""

import uuid
from datetime import date

import psycopg
import sqlalchemy as sa
from psycopg.rows import DictRow, dict_row
from sqlalchemy.orm import Session, scoped_session

import idxctl
from idxctl.testing import drain, prepare


def with_psycopg(indexer: idxctl.Indexer, connection: psycopg.Connection[DictRow]) -> None:
    indexer.index("listings", 1, connection=connection)
    indexer.index("listings", uuid.uuid4())
    indexer.delete("listings", ("tenant", 7), connection=connection)
    indexer.index_many("listings", [1, "2", date(2026, 1, 1)], connection=psycopg.connect(row_factory=dict_row))
    indexer.delete_many("listings", range(3))
    with indexer.transaction(connection):
        indexer.index("listings", 1, connection=connection)
    indexer.index("listings", 1.5)  # type: ignore[arg-type]
    indexer.index("listings", None)  # type: ignore[arg-type]
    indexer.index("listings", 1, connection)  # type: ignore[call-arg]


def with_sqlalchemy(
    indexer: idxctl.Indexer, session: Session, sessions: scoped_session[Session], bare: sa.Connection
) -> None:
    for connection in (session, sessions, bare):
        indexer.index("listings", 1, connection=connection)
    with indexer.transaction(bare):
        pass
    with indexer.transaction(session):  # type: ignore[arg-type]
        pass


async def not_with_asynchronous_ones(indexer: idxctl.Indexer, connection: psycopg.AsyncConnection[DictRow]) -> None:
    indexer.index("listings", 1, connection=connection)  # type: ignore[arg-type]


def modes() -> bool:
    with idxctl.Indexer.from_config("idxctl.toml") as indexer:
        indexer.enable_async(workers=5, queue_size=1000)
        indexer.wait_for([1, 2], 10, index="listings")
        indexer.wait_for([("listings", 1)], timeout=0.5)
        status = indexer.status()
        if status["status"] == "enabled":
            return status["healthy"] and status["queue_size"] < 900
        status["healthy"]  # type: ignore[typeddict-item]
        indexer.disable_async()
        print(indexer.retry_dlq(limit=100).retried, indexer.counters["sync"].percentile(0.95))
        prepare(indexer)
        drain(indexer, timeout=5)
        return indexer.shutdown(timeout=30)


def errors() -> None:
    try:
        modes()
    except (idxctl.SchemaError, idxctl.WrongType, TypeError):
        pass
    except idxctl.IdxctlError as error:
        print(error.message, error.hint)
