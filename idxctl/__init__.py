"""idxctl keeps OpenSearch in step with PostgreSQL."""

__version__ = "0.1.0"
