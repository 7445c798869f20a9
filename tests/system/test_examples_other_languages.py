"""The programs of examples/ in Go and Java, built and run: rows and tasks by SQL in their own transaction."""

import os
import shutil
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from support import judge

EXAMPLES = Path(__file__).parents[2] / "examples"
COUNT = 30

pytestmark = pytest.mark.system


@pytest.fixture
def shop(migrated, opensearch_url, unique_name, idxctl):
    """The table and the index that the examples share, made by the commands that users type; yields the database's URL."""
    home = idxctl.cwd / "shop"
    shutil.copytree(EXAMPLES / "fastapi", home)
    config = home / "idxctl.toml"
    config.write_text(config.read_text().replace("shop_listings", unique_name))
    with psycopg.connect(migrated, autocommit=True) as connection:
        connection.execute((home / "schema.sql").read_bytes())
    idxctl.use(database=migrated, opensearch=opensearch_url, config=config)
    assert idxctl("reindex").status == 0
    return migrated


def build(*command, cwd):
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr


def run_and_compare(command, environ, shop, opensearch_url, index, idxctl):
    done = subprocess.run(
        command, env={**os.environ, **environ}, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert idxctl("worker", "start", "--until-empty").status == 0
    query = (EXAMPLES / "fastapi" / "listings.sql").read_text()
    assert judge.differences(shop, query, opensearch_url, index) == []
    documents = dict(judge.held_documents(opensearch_url, index))
    assert len(documents) == COUNT - 1
    assert documents["7"] == {"title": "lamp 7", "price": 14, "status": "active"}


@pytest.mark.skipif(shutil.which("go") is None, reason="Go is not installed")
def test_go(shop, opensearch_url, unique_name, idxctl, tmp_path):
    program = tmp_path / "shop"
    build("go", "build", "-o", str(program), ".", cwd=EXAMPLES / "go")
    run_and_compare(
        [program, unique_name, str(COUNT)], {"IDXCTL_DATABASE_URL": shop}, shop, opensearch_url, unique_name, idxctl
    )


@pytest.mark.skipif(shutil.which("mvn") is None, reason="Maven is not installed")
def test_java(shop, opensearch_url, unique_name, idxctl, tmp_path):
    home = tmp_path / "java"
    shutil.copytree(EXAMPLES / "java", home, ignore=shutil.ignore_patterns("target"))
    build("mvn", "-q", "compile", "dependency:copy-dependencies", cwd=home)
    parts = urlsplit(shop)
    url = f"jdbc:postgresql://{parts.hostname}:{parts.port}{parts.path}?user={parts.username}&password={parts.password}"
    classes = f"{home / 'target/classes'}:{home / 'target/dependency'}/*"
    run_and_compare(
        ["java", "-cp", classes, "shop.Shop", unique_name, str(COUNT)],
        {"SHOP_JDBC_URL": url}, shop, opensearch_url, unique_name, idxctl,
    )  # fmt: skip
