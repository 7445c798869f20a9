"""Verify: documents against their rows."""

from idxctl.postgres.statements import load

SQL = load("idxctl.verify", "verify.sql")
