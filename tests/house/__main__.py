"""Print the measures of the house: ``make house``."""

from __future__ import annotations

import statistics
from pathlib import Path

from house import measures

PACKAGE = Path(__file__).resolve().parents[2] / "idxctl"
SHOWN = 10


def main() -> None:
    modules = measures.read(PACKAGE)
    functions = measures.functions(modules)
    lengths = [module.lines for module in modules]
    print(f"{len(modules)} modules, median {statistics.median(lengths):.0f} lines, longest {max(lengths)}")
    for module in sorted(modules, key=lambda one: -one.lines):
        if module.lines > measures.MODULE_LINES:
            print(f"  {module.lines:>5}  {module.place}")
    median = statistics.median(one.lines for one in functions)
    print(f"{len(functions)} functions, median {median:.0f} lines, longest {functions[0].lines}")
    for one in functions:
        if one.lines > measures.FUNCTION_LINES:
            print(f"  {one.lines:>5}  {one.place}")
    print("largest classes, by attributes")
    for name, count in measures.attributes(modules)[:SHOWN]:
        print(f"  {count:>5}  {name}")
    circles = measures.circles(modules)
    print(f"{len(circles)} circles of imports")
    for circle in circles:
        print(f"         {' ↔ '.join(circle)}")
    twice = measures.shared(modules)
    print(f"{len(twice)} pairs of places share {measures.SHARED_LINES} lines or more")
    for pair in twice[:SHOWN]:
        print(f"  {pair.lines:>5}  {pair.here} ~ {pair.there}")


if __name__ == "__main__":
    main()
