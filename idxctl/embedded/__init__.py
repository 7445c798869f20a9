"""A real PostgreSQL and a real OpenSearch from Python packages alone, for the demo, the tests and the benchmarks."""
