"""
The library: `Indexer`, for applications that index in-process.

`indexer` is its face; `callers` and the two adapters speak with the caller's own connection, `inline` indexes in the caller's
thread after the commit, `background` in threads beside it.
"""
