"""
The soak: everything at once, at random, for as long as asked; then every document is compared with its row.

``make soak MINUTES=10`` runs it, ``SEED=`` repeats the faults of an earlier run in their order. Servers, three worker processes
and four writers are its own; it exits with 1 when anything is not as promised.
"""
