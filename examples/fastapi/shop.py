"""
A small shop: listings in PostgreSQL, found in OpenSearch.

    idxctl migrate up && idxctl reindex
    ENABLE_ASYNC_INDEXING=true uvicorn shop:app

Each change and its task commit together, or neither does. No request asks OpenSearch for anything but a search.
"""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import psycopg
from fastapi import Depends, FastAPI, HTTPException
from opensearchpy import OpenSearch
from psycopg.rows import DictRow, dict_row
from psycopg_pool import ConnectionPool
from pydantic import BaseModel, Field

import idxctl

INDEX = os.environ.get("SHOP_INDEX", "shop_listings")

indexer = idxctl.Indexer.from_config(os.environ.get("IDXCTL_CONFIG", "idxctl.toml"))
database: ConnectionPool[psycopg.Connection[DictRow]] = ConnectionPool(
    os.environ["IDXCTL_DATABASE_URL"], kwargs={"row_factory": dict_row}, min_size=1, max_size=8, open=False
)
search = OpenSearch(os.environ["IDXCTL_OPENSEARCH_URL"], timeout=2, max_retries=0)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Open the pool; at the end finish what is in flight."""
    with database, indexer:
        yield


app = FastAPI(title="Shop", lifespan=lifespan)


def transaction() -> Iterator[psycopg.Connection[DictRow]]:
    """One transaction a request; what it enqueued is indexed after its commit, if indexing is synchronous."""
    with database.connection() as connection, indexer.transaction(connection):
        yield connection


Transaction = Annotated[psycopg.Connection[DictRow], Depends(transaction, scope="function")]


class Listing(BaseModel):
    """What a seller says."""

    title: str = Field(min_length=1, max_length=200)
    price: float = Field(ge=0, lt=10**9)
    status: str = "active"


@app.post("/listings", status_code=201)
def create(listing: Listing, connection: Transaction) -> dict[str, Any]:
    """Offer something."""
    row = connection.execute(
        "INSERT INTO listings (title, price, status) VALUES (%(title)s, %(price)s, %(status)s) RETURNING id",
        listing.model_dump(),
    ).fetchone()
    assert row is not None
    indexer.index(INDEX, row["id"], connection=connection)
    return {"id": row["id"]}


@app.put("/listings/{listing_id}")
def change(listing_id: int, listing: Listing, connection: Transaction) -> dict[str, Any]:
    """Change an offer."""
    changed = connection.execute(
        "UPDATE listings SET title = %(title)s, price = %(price)s, status = %(status)s WHERE id = %(id)s",
        {**listing.model_dump(), "id": listing_id},
    ).rowcount
    if not changed:
        raise HTTPException(404, "no such listing")
    indexer.index(INDEX, listing_id, connection=connection)
    return {"id": listing_id}


@app.delete("/listings/{listing_id}", status_code=204)
def withdraw(listing_id: int, connection: Transaction) -> None:
    """Take an offer back."""
    connection.execute("DELETE FROM listings WHERE id = %s", (listing_id,))
    indexer.delete(INDEX, listing_id, connection=connection)


@app.get("/search")
def find(q: str) -> list[dict[str, Any]]:
    """Search the titles."""
    found = search.search(index=INDEX, body={"query": {"match": {"title": q}}, "size": 20})
    return [{"id": int(hit["_id"]), **hit["_source"]} for hit in found["hits"]["hits"]]


@app.get("/api/v1/admin/indexer/status")
def status() -> idxctl.Status:
    """How indexing goes."""
    return indexer.status()


@app.get("/api/v1/admin/indexer/latency")
def latency() -> dict[str, Any]:
    """From enqueued to indexed, in seconds, by mode: what a canary is compared by."""
    return {
        mode: {"indexed": counters.indexed, "p50": counters.percentile(0.5), "p95": counters.percentile(0.95)}
        for mode, counters in indexer.counters.items()
    }
