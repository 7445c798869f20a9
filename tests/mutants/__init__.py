"""
The rules of the protocol, left out one at a time: each mutant of the code must turn a test red.

    make mutants                            all of them: a line each, status 1 if one survives
    PYTHONPATH=tests python -m mutants T1 fan-out   those whose name has one of these words
    PYTHONPATH=tests python -m mutants --quick      without random histories
    PYTHONPATH=tests python -m mutants --list

A mutant is made in a copy of the tree. What it changes is found by what the code is (`anchors`), wherever that has moved.
"""

from __future__ import annotations

from mutants import capture, library, postgres, protocol, rebuild, worker

ALL = tuple(one for table in (protocol, postgres, capture, worker, rebuild, library) for one in table.MUTANTS)
