"""Run the command line, and say at its end how many kilobytes it held at the most: measured.py ARGS..."""

from __future__ import annotations

import resource
import sys

from idxctl.cli.app import run


def main() -> None:
    try:
        run(sys.argv[1:])
    finally:
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


if __name__ == "__main__":
    main()
