"""The metrics of an application that indexes in its own process: synchronous and asynchronous side by side."""

import contextlib

import psycopg
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from idxctl import Indexer
from support.calls import parse_metrics
from support.rig import until


@pytest.fixture
def indexer(untriggered):
    with Indexer(untriggered.settings) as made:
        yield made


def test_an_applications_registry_tells_what_was_indexed_in_which_mode(untriggered, indexer):
    registry = CollectorRegistry()
    registry.register(indexer.collector())

    def counted(mode):
        name = f'opensearch_indexing_latency_seconds_count{{index="{untriggered.index}",mode="{mode}"}}'
        return parse_metrics(generate_latest(registry).decode())[name]

    assert (counted("sync"), counted("async")) == (0, 0)
    with contextlib.closing(psycopg.connect(untriggered.database, autocommit=True)) as connection:
        indexer.index(untriggered.index, 1, connection=connection)
        assert (counted("sync"), counted("async")) == (1, 0)
        indexer.enable_async(workers=1)
        indexer.index_many(untriggered.index, [2, 3], connection=connection)
        until(lambda: counted("async") == 2, "nothing was counted")
        assert counted("sync") == 1
