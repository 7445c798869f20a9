"""Run the tests on each version: python -m versions, with words of the parts' names."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time

import versions
from versions import parts


def main() -> int:
    """Run the parts that were asked for; 1 when one of them fails."""
    parser = argparse.ArgumentParser(
        prog="python -m versions", description=(versions.__doc__ or "").strip().split("\n\n")[0]
    )
    parser.add_argument("words", nargs="*")
    parser.add_argument("--list", action="store_true")
    given = parser.parse_args()
    wanted = [one for one in parts.ALL if not given.words or any(word in one.name for word in given.words)]
    if given.list:
        print("\n".join(one.name for one in wanted))
        return 0
    outcomes: dict[str, str] = {}
    for part in wanted:
        print(f"\n=== {part.name}", flush=True)
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="idxctl-versions-") as directory:
            try:
                run = part.prepare(parts.Path(directory))
            except parts.NotHere as reason:
                outcomes[part.name] = f"not here: {reason}"
                continue
            command = [
                run.python,
                "-m",
                "pytest",
                "-q",
                "-p",
                "no:cacheprovider",
                "-n",
                os.environ.get("WORKERS") or "2",
                *part.tests,
            ]
            done = subprocess.run(command, cwd=parts.ROOT, env=run.environ, check=False)
        outcomes[part.name] = f"{'ok' if done.returncode == 0 else 'FAILED'} ({time.monotonic() - began:.0f} s)"
    print()
    for name, outcome in outcomes.items():
        print(f"{name:<32} {outcome}")
    ran = [outcome for outcome in outcomes.values() if not outcome.startswith("not here")]
    return 0 if ran and all(outcome.startswith("ok") for outcome in ran) else 1


if __name__ == "__main__":
    sys.exit(main())
