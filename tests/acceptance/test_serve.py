"""`idxctl serve` and `worker start --http`, as typed."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys

import pytest

from support.calls import Caller

TOKEN = "a-token-of-this-test-0123456789"


@pytest.fixture
def serving(idxctl, migrated, opensearch_url):
    """Start `serve` on a free port; the caller and the process."""
    idxctl.use(database=migrated, opensearch=opensearch_url)

    def start(*arguments, **env):
        process = idxctl.start("serve", "--http", "127.0.0.1:0", "--log-format", "json", *arguments, env=env)
        facts = [json.loads(process.stderr.readline())]
        return Caller(facts[0]["address"]), process, facts[0]

    return start


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_answers_until_it_is_stopped(serving, number):
    api, process, fact = serving(IDXCTL_HTTP_TOKEN=TOKEN)
    assert fact["text"].endswith(", 1 token")
    assert api.get("/readyz").json == {"ready": True}
    assert api.get("/indexer/status", token=TOKEN).json["status"] == "disabled"
    assert api.post("/dlq/retry", token=TOKEN).json["retried"] == 0
    process.send_signal(number)
    assert process.wait(30) == 0
    assert process.stderr.read() == ""


def test_read_only_holds_whatever_the_token(serving):
    api, _, fact = serving("--read-only", IDXCTL_HTTP_TOKEN=TOKEN)
    assert fact["text"].endswith("read-only")
    assert api.post("/dlq/purge?all=true", token=TOKEN).status == 403
    assert api.get("/dlq", token=TOKEN).json == {"letters": [], "next_cursor": None}


def test_tokens_of_a_file_have_names_and_roles(serving, tmp_path):
    file = tmp_path / "tokens"
    file.write_text(f"# who may\nalice operator {TOKEN}\nvictor, viewer, another-token-0123456789\n")
    api, process, fact = serving(IDXCTL_HTTP_TOKENS_FILE=str(file))
    assert fact["text"].endswith(", 2 tokens")
    assert f"chmod 600 {file}" in json.loads(process.stderr.readline())["text"]
    assert api.post("/dlq/retry", token=TOKEN).status == 200
    assert "victor is a viewer" in api.post("/dlq/retry", token="another-token-0123456789").json["detail"]


def test_a_tokens_file_may_hold_hashes(serving, idxctl, tmp_path):
    made = idxctl("serve", "--hash-token", stdin=f"{TOKEN}\n")
    assert made.status == 0, made.stderr
    assert TOKEN not in made.stdout + made.stderr
    file = tmp_path / "tokens"
    file.write_text(f"alice operator {made.stdout}")
    file.chmod(0o600)
    api, _, _ = serving(IDXCTL_HTTP_TOKENS_FILE=str(file))
    assert api.post("/dlq/retry", token=TOKEN).status == 200
    assert api.post("/dlq/retry", token=made.stdout.strip()).status == 401


@pytest.mark.parametrize("token", ["fifteen-letters", "two words that are long", ""])
def test_a_token_that_cannot_be_one_is_not_hashed(idxctl, token):
    done = idxctl("serve", "--hash-token", stdin=token)
    assert (done.status, done.stdout) == (2, "")


def test_a_short_token_is_refused_beyond_this_machine(idxctl, migrated, opensearch_url):
    idxctl.use(database=migrated, opensearch=opensearch_url)
    done = idxctl("serve", "--http", "0.0.0.0:0", env={"IDXCTL_HTTP_TOKEN": "fifteen-letters"})
    assert (done.status, "shorter than 16 characters" in done.stderr) == (4, True)
    assert "fifteen" not in done.stderr


@pytest.mark.parametrize("command", [("serve",), ("worker", "start")])
@pytest.mark.parametrize(
    ("listen", "status", "told"),
    [
        ("0.0.0.0:0", 4, "no token is configured"),
        ("nonsense", 4, "it is not HOST:PORT"),
        ("127.0.0.1:99999", 4, "it is not HOST:PORT"),
        ("192.0.2.1:0", 4, "this machine has no such address"),
    ],
)
def test_where_it_will_not_listen(idxctl, migrated, opensearch_url, command, listen, status, told):
    idxctl.use(database=migrated, opensearch=opensearch_url)
    done = idxctl(*command, "--http", listen)
    assert done.status == status
    assert told in done.stderr
    assert "hint:" in done.stderr or "address" in told


def test_a_port_in_use_is_said(idxctl):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = idxctl(
            "serve", env={"IDXCTL_HTTP_LISTEN": address, "IDXCTL_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/x"}
        )
    assert (done.status, done.stderr.splitlines()[0]) == (1, f"error: cannot listen on {address}: the port is in use")


@pytest.mark.parametrize("package", ["starlette", "uvicorn", "prometheus_client"])
def test_without_the_extra_it_says_how_to_get_it(idxctl, package):
    code = f"import sys; sys.modules[{package!r}] = None; from idxctl.cli.app import run; run(['serve'])"
    environ = {**idxctl.environ, "IDXCTL_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/x"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, cwd=idxctl.cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 4
    assert "hint:  pip install 'idxctl[http]'" in done.stderr


def test_an_export_needs_no_server_and_no_configuration(idxctl):
    done = idxctl("monitoring", "export", "mon", "-o", "json")
    assert done.status == 0
    assert [one["state"] for one in done.json] == ["written"] * 5
    assert all((idxctl.cwd / one["file"]).is_file() for one in done.json)
    (idxctl.cwd / "mon" / "idxctl.rules.yml").write_text("ours")
    again = idxctl("monitoring", "export", "mon")
    assert (again.status, "--force" in again.stderr) == (2, True)


@pytest.mark.parametrize("force", [(), ("--force",)])
def test_an_export_follows_no_link(idxctl, force):
    ours = idxctl.cwd / "ours"
    ours.write_text("mine")
    (idxctl.cwd / "mon").mkdir()
    (idxctl.cwd / "mon" / "idxctl.rules.yml").symlink_to(ours)
    done = idxctl("monitoring", "export", "mon", *force)
    assert (done.status, "is a link" in done.stderr) == (2, True)
    assert ours.read_text() == "mine"
    assert len(list((idxctl.cwd / "mon").iterdir())) == 1
    (idxctl.cwd / "elsewhere").mkdir()
    (idxctl.cwd / "link").symlink_to(idxctl.cwd / "elsewhere")
    assert idxctl("monitoring", "export", "link", *force).status == 2
    assert list((idxctl.cwd / "elsewhere").iterdir()) == []


def test_an_export_by_force_replaces_what_was_changed_and_leaves_nothing_beside(idxctl):
    assert idxctl("monitoring", "export", "mon").status == 0
    (idxctl.cwd / "mon" / "idxctl.rules.yml").write_text("ours")
    assert idxctl("monitoring", "export", "mon", "--force").status == 0
    assert "groups:" in (idxctl.cwd / "mon" / "idxctl.rules.yml").read_text()
    assert len(list((idxctl.cwd / "mon").iterdir())) == 5
