"""What conftest.py gives to the other tests."""

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import psycopg
import pytest

from idxctl.embedded.servers import wait_for_end

own_server = pytest.mark.skipif("IDXCTL_TEST_DATABASE_URL" in os.environ, reason="the server is not ours")


def test_database_is_empty(database):
    with psycopg.connect(database) as connection:
        count = connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone()
    assert count == (0,)


@pytest.mark.parametrize("_turn", [1, 2])
def test_nothing_is_left_of_another_tests_rows(migrated, _turn):
    with psycopg.connect(migrated, autocommit=True) as connection:
        assert connection.execute("SELECT to_regclass('left_over')").fetchone() == (None,)
        connection.execute("CREATE TABLE left_over ()")


def test_shop_has_listings_to_index(shop):
    with psycopg.connect(shop) as connection:
        assert connection.execute("SELECT count(*) FROM listings").fetchone() == (300,)
        assert connection.execute("SELECT count(*) FROM listing_images").fetchone() == (600,)


def test_opensearch_answers(opensearch_url, unique_name):
    request = urllib.request.Request(f"{opensearch_url}/{unique_name}-000001", method="PUT", data=b"{}")
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert json.load(answer)["acknowledged"]


def test_command_line_inherits_no_settings(idxctl, monkeypatch):
    assert not [name for name in idxctl.environ if name.startswith("PG")]
    assert "IDXCTL_DATABASE_URL" not in idxctl.use(opensearch="http://localhost:1").environ
    assert idxctl.environ["IDXCTL_OPENSEARCH_URL"] == "http://localhost:1"


@own_server
def test_killed_run_leaves_no_server(tmp_path):
    test = tmp_path / "test_waits.py"
    test.write_text("def test_waits(postgres_url):\n    print(postgres_url, flush=True)\n    input()\n")
    shutil.copy(Path(__file__).parents[1] / "conftest.py", tmp_path)
    command = [sys.executable, "-m", "pytest", "-s", "-q", "-p", "no:cacheprovider", f"--rootdir={tmp_path}", test]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as run:
        url = next(line.strip() for line in run.stdout if line.startswith("postgresql://"))
        with psycopg.connect(url) as connection:
            (data,) = connection.execute("SHOW data_directory").fetchone()
            pid = int(Path(data, "postmaster.pid").read_text().split()[0])
        run.kill()
        assert wait_for_end(pid, seconds=30)
    shutil.rmtree(Path(data).parents[1])


@own_server
def test_parallel_runs_share_one_postgres(tmp_path):
    test = tmp_path / "test_url.py"
    test.write_text(
        "import pytest\n@pytest.mark.parametrize('n', range(8))\n"
        f"def test_url(n, postgres_url):\n    open({str(tmp_path / 'urls')!r}, 'a').write(postgres_url + '\\n')\n"
    )
    shutil.copy(Path(__file__).parents[1] / "conftest.py", tmp_path)
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider", f"--rootdir={tmp_path}", test]
    done = subprocess.run(command, capture_output=True, check=False, text=True, cwd=tmp_path, timeout=120)
    assert done.returncode == 0, done.stdout
    urls = (tmp_path / "urls").read_text().split()
    assert len(urls) == 8
    assert len(set(urls)) == 1
    with pytest.raises(psycopg.OperationalError):  # it ended with the run
        psycopg.connect(urls[0])
