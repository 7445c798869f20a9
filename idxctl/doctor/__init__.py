"""Doctor: what is wrong, why, and the command that helps; of one document so far (`explain`)."""

from idxctl.postgres.statements import load

SQL = load("idxctl.doctor", "doctor.sql")
