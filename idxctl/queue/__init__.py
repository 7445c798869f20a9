"""
The queue: tasks are enqueued in the writer's transaction, claimed in batches under a lease, and settled.

`tokens` holds the numbers that order writes; `claim`, `settle` and `rescue` are the three ways a task moves; `expand` turns
one task into many; `pause` and `stats` are for people.
"""

from idxctl.postgres.statements import load

SQL = load("idxctl.queue", "queue.sql")
