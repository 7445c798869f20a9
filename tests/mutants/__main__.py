"""Try mutants: python -m mutants, with words of their names."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import mutants
from mutants.anchors import HISTORIES, ROOT, Mutant, Tree, changed


def survivors(mutant: Mutant, *, quick: bool, verbose: bool) -> list[str]:
    """Return those of its tests that pass although the rule is left out; *quick* spares random histories."""
    green = []
    tests = [one for one in mutant.tests if one != HISTORIES] if quick and len(mutant.tests) > 1 else mutant.tests
    with tempfile.TemporaryDirectory() as directory:
        tree = Path(directory) / "tree"
        shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(".*", "dist", "build", "__pycache__"))
        for path, text in changed(mutant.edits, Tree(tree)).items():
            (tree / path).write_bytes(text)
        for test in tests:
            command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", test]
            environ = {"IDXCTL_TEST_HISTORIES": "300", **os.environ, "IDXCTL_TEST_SHRINK": "no"}
            done = subprocess.run(command, cwd=tree, env=environ, capture_output=True, text=True, check=False)
            if verbose:
                print(done.stdout[-4000:], done.stderr[-2000:])
            if done.returncode == 0:
                green.append(test)
            elif done.returncode != 1:
                raise RuntimeError(f"{mutant.name}: {test} did not run:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return green


def main() -> int:
    """Try the mutants that were asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m mutants", description=(mutants.__doc__ or "").strip().split("\n\n")[0]
    )
    parser.add_argument("words", nargs="*")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--quick", action="store_true", help="without random histories, where another test is named")
    parser.add_argument("--verbose", action="store_true")
    given = parser.parse_args()
    wanted = [one for one in mutants.ALL if not given.words or any(word in one.name for word in given.words)]
    alive = 0
    for mutant in wanted:
        if given.list:
            print(mutant.name)
            continue
        began = time.monotonic()
        green = survivors(mutant, quick=given.quick, verbose=given.verbose)
        alive += bool(green)
        print(
            f"{'SURVIVES' if green else 'red':9} {mutant.name} ({time.monotonic() - began:.0f} s)"
            + "".join(f"\n          green: {one}" for one in green),
            flush=True,
        )
    return 1 if alive else 0


if __name__ == "__main__":
    sys.exit(main())
