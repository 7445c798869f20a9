"""The rights that each role needs, as SQL, from what is there."""

from idxctl.postgres.statements import load

SQL = load("idxctl.grants", "grants.sql")
