"""``kill -9`` of an application that uses the library, wherever it stands: at rest every document equals its row."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.sampled

PROGRAM = Path(__file__).parents[1] / "support" / "applications.py"


def run(rig, idxctl, mode, point, nth):
    idxctl.use(database=rig.database, opensearch=rig.opensearch)
    arguments = [rig.database, rig.config, mode, point, str(nth), "1", "8"]
    return subprocess.run(
        [sys.executable, PROGRAM, *arguments], env=idxctl.environ, capture_output=True, check=False, timeout=120
    )


@pytest.mark.parametrize(
    ("mode", "points"),
    [
        ("sync", {"application.indexed": 3, "claim.locked": 3, "claim.committed": 3, "send.done": 3}),
        ("async", {"application.indexed": 3, "application.committed": 3, "settle.before": 1}),
    ],
)
def test_an_application_killed_anywhere_loses_nothing(untriggered, idxctl, mode, points):
    for point, nth in points.items():
        done = run(untriggered, idxctl, mode, point, nth)
        assert done.returncode == -signal.SIGKILL, (point, done.stderr)
        untriggered.sql("UPDATE opensearch_indexing_inflight SET lease_until = now() - interval '1 s'")
        untriggered.drain()
        assert untriggered.differences() == [], point
        assert untriggered.letters() == {}
    assert untriggered.one("SELECT count(*) FROM items WHERE name LIKE '%%.' || %s", mode) >= 2
