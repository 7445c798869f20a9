"""
What `monitoring export` writes, judged by Prometheus' own tools, and by a Prometheus that scrapes a worker.

Needs Debian's package prometheus, for its programs; the service need not run.
"""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import urllib.parse
import urllib.request

import pytest

from idxctl.monitoring import dashboard
from idxctl.monitoring.alerts import ALERTS
from support.calls import Caller
from support.fixtures import items, items_template  # noqa: F401 - pytest finds them by name here
from support.rig import until

pytestmark = pytest.mark.system
TOKEN = "a-token-of-this-test-0123456789"


@pytest.fixture(autouse=True)
def _prerequisites():
    for program in ("promtool", "prometheus"):
        if not shutil.which(program):
            pytest.fail(f"no {program} on this machine: apt-get install prometheus")


@pytest.fixture
def exported(idxctl, tmp_path):
    def export(*targets):
        directory = tmp_path / "monitoring"
        done = idxctl("monitoring", "export", directory, *(word for one in targets for word in ("--target", one)))
        assert done.status == 0, done.stderr
        return directory

    return export


def promtool(*arguments, cwd):
    done = subprocess.run(["promtool", *arguments], cwd=cwd, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_promtool_takes_rules_configuration_and_tests(exported):
    directory = exported("127.0.0.1:9321", "[::1]:9321")
    for arguments in (
        ("check", "rules", "idxctl.rules.yml"),
        ("check", "config", "prometheus.yml"),
        ("test", "rules", "idxctl.rules.test.yml"),
    ):
        status, told = promtool(*arguments, cwd=directory)
        assert status == 0, told
    assert f"{len(ALERTS)} rules found" in promtool("check", "rules", "idxctl.rules.yml", cwd=directory)[1]


def test_promtool_tells_two_installations_apart_by_any_label(exported, idxctl):
    directory = exported()
    assert idxctl("monitoring", "export", directory, "--label", "installation", "--force").status == 0
    for arguments in (("check", "rules", "idxctl.rules.yml"), ("test", "rules", "idxctl.rules.test.yml")):
        status, told = promtool(*arguments, cwd=directory)
        assert status == 0, told
    assert "by (job" not in (directory / "idxctl.rules.yml").read_text()


def test_the_rule_tests_notice_rules_that_add_installations_up(exported):
    directory = exported()
    rules = directory / "idxctl.rules.yml"
    rules.write_text(rules.read_text().replace("sum by (job) (max by (job, index)", "sum(max by (index)"))
    assert promtool("test", "rules", "idxctl.rules.test.yml", cwd=directory)[0] == 1


@pytest.mark.parametrize(
    ("threshold", "other"), [("> 100", "> 150"), ("> 0.9", "> 0.8"), ("[2m])) > 10", "[2m])) > 20"), ("> 300", "> 900")]
)
def test_the_rule_tests_notice_another_threshold(exported, threshold, other):
    directory = exported()
    rules = directory / "idxctl.rules.yml"
    assert threshold in rules.read_text()
    rules.write_text(rules.read_text().replace(threshold, other))
    assert promtool("test", "rules", "idxctl.rules.test.yml", cwd=directory)[0] == 1


class Prometheus:
    def __init__(self, address):
        self.url = f"http://{address}"

    def ask(self, path, **query):
        with urllib.request.urlopen(f"{self.url}{path}?{urllib.parse.urlencode(query)}", timeout=10) as answer:
            return json.load(answer)["data"]

    def query(self, expression):
        return self.ask("/api/v1/query", query=expression)["result"]

    def ready(self):
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=10) as answer:
                return answer.status == 200
        except OSError:
            return False

    def firing(self):
        return {one["labels"]["alertname"] for one in self.ask("/api/v1/alerts")["alerts"] if one["state"] == "firing"}


@pytest.fixture
def prometheus(tmp_path):
    """Start one over an export; its copy waits for nothing and looks five times a second."""
    started = []

    def start(directory):
        for file in ("prometheus.yml", "idxctl.rules.yml"):
            text = re.sub(r"(scrape_interval|evaluation_interval): 15s", r"\1: 200ms", (directory / file).read_text())
            (directory / file).write_text(re.sub(r"for: \d+m", "for: 0s", text))
        with socket.create_server(("127.0.0.1", 0)) as free:
            address = f"127.0.0.1:{free.getsockname()[1]}"
        log = (tmp_path / "prometheus.log").open("w")
        command = [
            "prometheus",
            f"--config.file={directory}/prometheus.yml",
            f"--web.listen-address={address}",
            f"--storage.tsdb.path={tmp_path}/tsdb",
        ]
        started.append((subprocess.Popen(command, stdout=log, stderr=log), log))
        found = Prometheus(address)
        until(found.ready, "Prometheus is not ready")
        return found

    yield start
    for process, log in started:
        process.kill()
        process.wait()
        log.close()


def test_a_prometheus_scrapes_a_worker_and_an_alert_fires_and_resolves(items, idxctl, exported, prometheus):  # noqa: F811
    idxctl.use(database=items.database, opensearch=items.opensearch, config=items.config)
    process = idxctl.start(
        "worker", "start", "--http", "127.0.0.1:0", "--log-format", "json", env={"IDXCTL_HTTP_TOKEN": TOKEN}
    )
    facts = (json.loads(line) for line in process.stderr)
    address = next(fact["address"] for fact in facts if "address" in fact)
    found = prometheus(exported(address))
    until(lambda: found.query("opensearch_indexing_workers_alive >= 1"), "no worker was scraped")
    items.sql("UPDATE items SET name = 'new', price = CASE WHEN id <= 3 THEN 'dear' ELSE '2' END")
    until(lambda: found.query("sum(opensearch_indexing_success_total) >= 17"), "no success was scraped")
    until(
        lambda: found.query('sum(opensearch_indexing_failure_total{reason="refused"}) >= 3'), "no failure was scraped"
    )
    for expression in dashboard.expressions()[:-2]:  # as Grafana asks it; the last two are the variables'
        found.query(expression.replace("$index", ".*").replace("$installation", ".*").replace("$__rate_interval", "1m"))
    assert not found.firing() & {"OpenSearchIndexingDeadLetters", "OpenSearchIndexingNoWorker"}

    items.sql(
        "INSERT INTO opensearch_indexing_dlq (index_name, document_id, action, attempts, last_error) "
        "SELECT %s, n::text, 'index', 1, 'boom' FROM generate_series(1001, 1101) n",
        items.index,
    )
    until(lambda: "OpenSearchIndexingDeadLetters" in found.firing(), "no alert fires")
    assert Caller(address, TOKEN).post("/dlq/purge?all=true").json["purged"] == 104
    until(lambda: "OpenSearchIndexingDeadLetters" not in found.firing(), "the alert does not resolve")

    process.terminate()
    assert process.wait(30) == 0
    until(lambda: "OpenSearchIndexingNoWorker" in found.firing(), "nobody misses the worker", seconds=330)
