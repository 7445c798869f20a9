"""docs/library.md as a reader would follow it: its blocks run, in their order, with warnings as errors."""

import re
import subprocess
import sys
from pathlib import Path

from idxctl.demo.shop import write_definition
from support import judge
from support.rig import until

PAGE = Path(__file__).parents[2] / "docs" / "library.md"
_BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# (\w+\.py)\n")


def test_the_page_does_what_it_says(shop, opensearch_url, unique_name, idxctl):
    home = idxctl.cwd
    config = write_definition(home, index=unique_name)
    idxctl.use(database=shop, opensearch=opensearch_url, config=config)
    program = []
    for block in _BLOCK.findall(PAGE.read_text().replace("marketplace_listings", unique_name)):
        if named := _FILE.match(block):
            (home / named.group(1)).write_text(block)
        else:
            program.append(block)
    program.append("engine.dispose()\n")
    (home / "program.py").write_text("\n".join(program))
    given = {"IDXCTL_TEST_DATABASE_URL": shop, "IDXCTL_TEST_OPENSEARCH_URL": opensearch_url}

    tested = run(home, {**idxctl.environ, **given}, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_listings.py")
    assert tested.returncode == 0, tested.stdout + tested.stderr
    done = run(home, idxctl.environ, "-W", "error", "program.py")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    shown = [line.partition("# ")[2] for line in "".join(program).splitlines() if "indexer.status()" in line]
    assert re.sub(r"'queue_size': \d+", "'queue_size': 23", done.stdout).splitlines() == [*shown, "0 letters"]

    assert idxctl("worker", "start", "--until-empty").status == 0
    query = (home / "listings.sql").read_text()
    until(lambda: judge.differences(shop, query, opensearch_url, unique_name) == [], "documents differ from their rows")


def run(home, environ, *arguments):
    return subprocess.run(
        [sys.executable, *arguments], cwd=home, env=environ, capture_output=True, text=True, check=False, timeout=180
    )
