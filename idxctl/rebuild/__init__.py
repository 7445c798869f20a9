"""Rebuild: a whole index without downtime."""

from idxctl.postgres.statements import load

SQL = load("idxctl.rebuild", "rebuild.sql")
