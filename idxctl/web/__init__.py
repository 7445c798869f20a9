"""HTTP: status, dead letters, queue and metrics, inside a worker or alone. Needs the extra ``idxctl[http]``."""
