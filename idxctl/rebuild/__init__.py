"""Rebuild: a whole index without downtime."""
