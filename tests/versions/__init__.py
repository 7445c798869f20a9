"""
The versions that the README claims, each tried: PostgreSQL 14 to 18, OpenSearch 2 and 3, and the lowest and the newest dependencies on
each Python that is there.

``make test-versions`` runs all of it; ``python -m versions WORD…`` the parts whose name has one of the words, ``--list`` names them.
What cannot be had here is said and skipped.
"""
