"""HTTP that says no: to who may not, to what cannot be meant, and while a server is away. Nothing changes, none is a bare 500."""

from __future__ import annotations

import contextlib
import http.client
import socket
from dataclasses import replace

import pytest

from idxctl.config import bearers
from idxctl.config.settings import Bearer, DatabaseSettings, OpenSearchSettings
from idxctl.core.errors import ConfigError, IdxctlError
from idxctl.core.secret import Secret
from support.calls import GETS, OPERATOR, POSTS, VIEWER, served
from support.rig import Rig, write_items

pytestmark = pytest.mark.sampled


@pytest.fixture(scope="module")
def still(clone, items_template, opensearch_url, tmp_path_factory):
    """A database with three letters, which all of these tests share: none of them may change it."""
    directory = tmp_path_factory.mktemp("still")
    write_items(directory, "still")
    with clone(items_template) as url, contextlib.closing(Rig(url, opensearch_url, "still", directory)) as rig:
        rig.sql(
            "INSERT INTO opensearch_indexing_dlq (index_name, document_id, action, attempts, last_error) "
            "SELECT 'still', n::text, 'index', 1, 'boom' FROM generate_series(1, 3) n"
        )
        yield rig


@pytest.fixture(scope="module")
def api(still):
    with served(still.settings) as caller:
        yield caller


@pytest.fixture(autouse=True)
def _nothing_changes(still):
    yield
    assert set(still.letters()) == {"1", "2", "3"}
    assert still.queued() == 0
    assert still.one("SELECT count(*) FROM opensearch_indexing_audit WHERE action LIKE 'dlq%%'") == 0


# --- who may ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("http", "token", "status"),
    [
        ({"bearers": ()}, None, 403),
        ({"bearers": ()}, "anything", 401),
        ({}, None, 401),
        ({}, "wrong", 401),
        ({}, OPERATOR + "x", 401),
        ({}, VIEWER, 403),
        ({"read_only": True}, OPERATOR, 403),
    ],
)
def test_who_may_not_changes_nothing(still, http, token, status):
    with served(still.settings, **http) as api:
        for path in POSTS:
            refused = api.post(path, token=token)
            assert (refused.status, refused.is_problem) == (status, True)
            assert ("www-authenticate" in refused.headers) == (status == 401)


def test_once_there_is_a_token_reading_needs_one_too(api):
    for path in GETS:
        assert api.get(path, token=None).status == 401, path
        assert api.get(path, token="wrong").status == 401, path
        assert api.get(path, token=VIEWER).status == 200, path
    for path in ("/livez", "/readyz", "/metrics"):
        assert api.get(path, token=None).status == 200, path


def test_where_there_is_no_token_this_machine_reads_and_a_wrong_one_is_refused(still):
    with served(still.settings, bearers=()) as api:
        for path in GETS:
            assert api.get(path, token=None).status == 200, path
        assert api.get("/dlq", token="wrong").status == 401


RELAYED = (
    "Forwarded",
    "X-Forwarded-For",
    "X-Forwarded-Proto",
    "X-Forwarded-Host",
    "X-Forwarded-Anything",
    "Via",
    "X-Real-IP",
    "X-Original-Forwarded-For",
    "X_Forwarded_For",
    "CDN-Loop",
    "WL-Proxy-Client-IP",
    "Fly-Client-IP",
    "X-Azure-SocketIP",
    "X-Amzn-Trace-Id",
    "X-Envoy-Peer-Metadata",
    "Proxy-Connection",
)


@pytest.mark.parametrize("header", RELAYED)
def test_what_a_proxy_passes_on_does_not_come_from_this_machine(still, header):
    with served(still.settings, bearers=()) as api:
        for path in GETS:
            refused = api.get(path, headers={header: "127.0.0.1"})
            assert (refused.status, refused.is_problem) == (403, True), path
        for path in ("/livez", "/readyz", "/metrics"):
            assert api.get(path, headers={header: "127.0.0.1"}).status == 200, path
    with served(still.settings) as api:
        assert api.get("/dlq", headers={header: "203.0.113.7"}, token=VIEWER).status == 200


def test_an_origin_that_is_no_address_is_another_site_and_no_internal_error(still):
    with served(still.settings) as api:
        refused = api.post("/dlq/retry", headers={"Origin": "http://["})
        assert (refused.status, refused.is_problem) == (403, True)


def test_a_plain_nginx_adds_no_header_and_is_known_by_its_old_http(still):
    with served(still.settings, bearers=()) as api:
        for token, status in ((b"", b"403"), (b"Authorization: Bearer wrong\r\n", b"401")):
            with socket.create_connection(tuple(api.address.split(":"))) as one:
                one.sendall(
                    b"GET /api/v1/admin/dlq HTTP/1.0\r\nHost: 127.0.0.1\r\nConnection: close\r\n" + token + b"\r\n"
                )
                assert one.recv(100).split()[1] == status


def test_anybody_reads_where_that_is_said_in_so_many_words_and_changes_nothing(still):
    with served(still.settings, anonymous_read=True) as api:
        assert api.get("/dlq", token=None, headers={"X-Forwarded-For": "203.0.113.7"}).status == 200
        assert api.get("/dlq", token="wrong").status == 401
        assert api.post("/dlq/retry", token=None).status == 401
        assert api.get("/dlq", token=None, headers={"Host": "evil.example"}).status == 403
    with served(still.settings, anonymous_read=True, bearers=(), listen="0.0.0.0:0") as api:
        api.address = api.address.replace("0.0.0.0", "127.0.0.1")
        assert api.get("/dlq").status == 200
        assert api.post("/dlq/retry").status == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_a_page_of_another_site_changes_nothing_even_with_a_token(api, headers):
    for path in POSTS:
        assert api.post(path, headers=headers).status == 403


@pytest.mark.parametrize("scheme", ["Basic", "bearer ", ""])
def test_only_a_bearer_token_opens(api, scheme):
    assert api.post("/dlq/retry", headers={"Authorization": f"{scheme} {OPERATOR}x"}).status == 401


def test_beyond_this_machine_all_but_health_and_metrics_needs_a_token(still):
    with served(still.settings, listen="0.0.0.0:0") as api:
        api.address = api.address.replace("0.0.0.0", "127.0.0.1")
        for path in ("/livez", "/readyz", "/metrics"):
            assert api.get(path, token=None).status == 200, path
        for path in GETS:
            assert api.get(path, token=None).status == 401, path
            assert api.get(path, token=VIEWER).status in {200, 404}, path


@pytest.mark.parametrize("listen", ["0.0.0.0:0", ":0", "[::]:0"])
def test_beyond_this_machine_nothing_is_served_without_a_token(still, listen):
    with pytest.raises(ConfigError, match="no token is configured"), served(still.settings, listen=listen, bearers=()):
        pytest.fail("it listens")


def test_a_page_that_points_its_name_at_this_machine_reads_nothing(still, api):
    with served(still.settings, bearers=()) as open_:
        for host in ("evil.example", "evil.example:9321", "127.0.0.1.evil.example", "localhost.evil.example"):
            refused = open_.get("/dlq", headers={"Host": host})
            assert (refused.status, refused.is_problem) == (403, True), host
            assert api.get("/dlq", token=VIEWER, headers={"Host": host}).status == 200
        for host in ("localhost", "localhost:1", "127.0.0.1", "[::1]:9321"):
            assert open_.get("/dlq", headers={"Host": host}).status == 200, host


def test_a_token_that_others_could_guess_is_refused_beyond_this_machine(still):
    short = (Bearer("eve", "viewer", Secret("x" * 15)), Bearer("alice", "operator", Secret(OPERATOR)))
    with (
        pytest.raises(ConfigError, match="the token of eve is shorter than 16"),
        served(still.settings, listen="0.0.0.0:0", bearers=short),
    ):
        pytest.fail("it listens")
    with served(still.settings, bearers=short) as api:
        assert api.get("/dlq", token="x" * 15).status == 200


def test_a_token_of_which_only_the_hash_is_known_opens_and_the_hash_does_not(still):
    kept = bearers.hash_line(OPERATOR)
    with served(still.settings, bearers=(Bearer("alice", "operator", Secret(kept)),)) as api:
        assert api.post("/dlq/retry?dry_run=true", token=OPERATOR).status == 200
        for wrong in (kept, kept.partition("$")[2], OPERATOR[:-1], OPERATOR + "x"):
            assert api.get("/dlq", token=wrong).status == 401


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "body", "field"),
    [
        ("GET", "/dlq?limit=0", None, "limit"),
        ("GET", "/dlq?limit=ten", None, "limit"),
        ("GET", "/dlq?limit=1001", None, "limit"),
        ("GET", "/dlq?limit=1&limit=2", None, "limit"),
        ("GET", "/dlq?older_than=7", None, "older_than"),
        ("GET", "/dlq?older_than=9999999w", None, "older_than"),
        ("GET", "/dlq?cursor=bm8=", None, "cursor"),
        ("GET", "/dlq?cursor=%C3%A9", None, "cursor"),
        ("GET", "/dlq?id=9223372036854775808", None, "id"),
        ("GET", "/dlq?id=%C2%B2", None, "id"),
        ("GET", "/dlq?error=%00", None, "error"),
        ("GET", "/dlq?index=", None, "index"),
        ("GET", "/dlq?index=stil", None, "index"),
        ("GET", "/queue/stats?index=nobodys", None, "index"),
        ("POST", "/dlq/retry?index=stil", None, "index"),
        ("POST", "/dlq/purge", {"index": "stil"}, "index"),
        ("GET", "/queue/stats?indx=a", None, "indx"),
        ("POST", "/dlq/retry?limit=-1", None, "limit"),
        ("POST", "/dlq/retry", {"limit": "many"}, "limit"),
        ("POST", "/dlq/retry", {"limit": True}, "limit"),
        ("POST", "/dlq/retry?limit=1", {"limit": 1}, "limit"),
        ("POST", "/dlq/retry", {"id": []}, "id"),
        ("POST", "/dlq/retry", {"wait": "perhaps"}, "wait"),
        ("POST", "/dlq/purge?older-than=7d", None, "older-than"),
        ("POST", "/dlq/purge?older_than=7", None, "older_than"),
        ("POST", "/dlq/purge", {"older_than": 7}, "older_than"),
        ("POST", "/dlq/purge", {"older_than": None}, "older_than"),
    ],
)
def test_what_cannot_be_meant_is_named(api, method, path, body, field):
    refused = api(method, path, body)
    assert (refused.status, refused.is_problem, refused.json["field"]) == (400, True, field)
    assert field in refused.json["detail"]


@pytest.mark.parametrize(
    ("body", "media", "status"),
    [
        (b"{", "application/json", 400),
        (b"[1]", "application/json", 400),
        (b'{"error": "\\ud800"}', "application/json", 400),
        (b"limit=100", "application/x-www-form-urlencoded", 415),
        (b" " * 70_000, "application/json", 413),
    ],
)
def test_bodies_that_cannot_be_read(api, body, media, status):
    refused = api.post("/dlq/retry", body, headers={"Content-Type": media})
    assert (refused.status, refused.is_problem) == (status, True)


def test_a_body_said_to_be_too_large_is_not_waited_for(api):
    connection = http.client.HTTPConnection(api.address)
    with contextlib.closing(connection):
        connection.putrequest("POST", "/api/v1/admin/dlq/retry")
        for name, value in (("Authorization", f"Bearer {OPERATOR}"), ("Content-Length", "1000000")):
            connection.putheader(name, value)
        connection.endheaders()
        assert connection.getresponse().status == 413


def test_a_body_without_a_length_is_cut_off_too(api):
    connection = http.client.HTTPConnection(api.address)
    with contextlib.closing(connection):
        headers = {"Authorization": f"Bearer {OPERATOR}", "Content-Type": "application/json"}
        parts = (b" " * 10_000 for _ in range(20))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.request("POST", "/api/v1/admin/dlq/retry", parts, headers, encode_chunked=True)
        assert connection.getresponse().status == 413


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/dlq/999999999", 404),
        ("GET", "/dlq/99999999999999999999999", 404),
        ("GET", "/dlq/" + "9" * 5000, 404),
        ("GET", "/dlq/none", 404),
        ("GET", "/nothing", 404),
        ("GET", "/dlq/", 404),
        ("GET", "/api/v1/admin/../../../etc/passwd", 404),
        ("GET", "/dlq/retry", 405),
        ("POST", "/dlq", 405),
        ("DELETE", "/dlq/1", 405),
        ("OPTIONS", "/dlq/retry", 405),
        ("POST", "/metrics", 405),
    ],
)
def test_what_is_not_there_is_a_problem_too(api, method, path, status):
    refused = api(method, path)
    assert (refused.status, refused.is_problem) == (status, True)


def test_silent_and_slow_connections_shut_nobody_out(api):
    host, port = api.address.split(":")
    with contextlib.ExitStack() as held:
        for number in range(300):
            one = held.enter_context(socket.create_connection((host, int(port))))
            if number % 2:
                one.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        assert api.get("/livez").status == 200


@pytest.mark.parametrize("first", [b"", b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"])
@pytest.mark.parametrize("then", [b"", b"GET /livez HTTP/1.1\r\nHost: x\r\n"])
def test_a_connection_on_which_no_request_comes_is_closed(api, first, then):
    host, port = api.address.split(":")
    with socket.create_connection((host, int(port))) as one:
        one.settimeout(30)
        if first:
            one.sendall(first)
            assert one.recv(4096).startswith(b"HTTP/1.1 200")
        one.sendall(then)
        while one.recv(4096):  # until its end
            pass


def test_a_client_that_asks_too_much_is_told_to_wait(still):
    with served(still.settings, rate_limit=1) as api:
        statuses = [api.get("/openapi.json").status for _ in range(4)]
        assert (statuses[0], statuses[-1]) == (200, 429)
        refused = api.get("/openapi.json")
        assert refused.is_problem
        assert int(refused.headers["retry-after"]) >= 1
        assert api.get("/livez").status == 200


def test_whoever_guesses_waits_and_locks_out_nobody(still, caplog):
    with served(still.settings, rate_limit=10) as api, caplog.at_level("INFO"):
        statuses = [api.get("/dlq", token=f"guess{n}").status for n in range(40)]
        assert set(statuses[:10]) == {401}
        assert set(statuses[20:]) == {429}
        assert [api.post("/dlq/retry?dry_run=true").status for _ in range(10)] == [200] * 10
        assert [api.get(path, token=None).status for path in ("/livez", "/readyz", "/metrics")] == [200] * 3
        assert api.metrics()['opensearch_indexing_http_refused_total{reason="wrong_token"}'] == 40
    told = [one for one in caplog.records if getattr(one, "fact", "") == "refused"]
    assert 10 <= len(told) <= 20
    assert told[0].fields == {"address": "127.0.0.1", "method": "GET", "path": "/api/v1/admin/dlq"}
    assert "guess" not in caplog.text


def test_what_one_asks_too_often_is_taken_from_nobody_else(still):
    with served(still.settings, rate_limit=1) as api:
        assert 429 in [api.get("/openapi.json", token=VIEWER).status for _ in range(5)]
        assert 429 in [api.get("/dlq", token=None).status for _ in range(5)]
        assert api.get("/openapi.json", token=OPERATOR).status == 200
        assert api.get("/metrics", token=None).status == 200


# --- servers that are away -------------------------------------------------------------------------------------------


def away():
    """The address of a port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return f"127.0.0.1:{taken.getsockname()[1]}"


def test_without_postgres_it_lives_says_so_and_tells_its_counters(still):
    gone = replace(still.settings, database=DatabaseSettings(url=Secret(f"postgresql://app:hunter2@{away()}/shop")))
    with served(gone) as api:
        assert api.get("/livez").status == 200
        ready = api.get("/readyz")
        assert (ready.status, ready.is_problem, ready.json["detail"]) == (503, True, "PostgreSQL does not answer")
        for path in (*GETS[:-1], *POSTS):
            refused = api("POST" if path in POSTS else "GET", path)
            assert (refused.status, refused.is_problem) == (503, True), path
        found = api.metrics()
        assert found["opensearch_indexing_postgres_up"] == 0
        assert found[f'opensearch_indexing_success_total{{action="index",index="{still.index}",mode="async"}}'] == 0
        assert not any(name.startswith("opensearch_indexing_queue_size") for name in found)
        assert not any(b"hunter2" in one.body for one in api.answers)


def test_without_opensearch_it_is_not_ready_and_says_why(still):
    with served(replace(still.settings, opensearch=OpenSearchSettings(urls=(f"http://{away()}",)))) as api:
        assert api.get("/readyz").json["detail"] == "OpenSearch does not answer"
        assert api.get("/indexer/status").status == 200


def test_a_database_without_our_tables_is_told(still, database):
    with served(replace(still.settings, database=DatabaseSettings(url=Secret(database)))) as api:
        assert "not migrated" in api.get("/readyz").json["detail"]
        refused = api.get("/dlq")
        assert (refused.status, refused.json["hint"].startswith("idxctl migrate up")) == (503, True)


def test_a_connection_that_broke_while_idle_is_made_anew(still, api):
    assert api.get("/dlq").status == 200
    still.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'idxctl http'")
    assert [api.get("/dlq").status for _ in range(6)] == [200] * 6


# --- the server ------------------------------------------------------------------------------------------------------


def test_a_port_in_use_is_told(still):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(IdxctlError, match="the port is in use"), served(still.settings, listen=address):
            pytest.fail("it listens")


def test_every_answer_forbids_to_be_kept_framed_or_guessed_at(api):
    for found in (api.get("/dlq"), api.get("/livez"), api.get("/nothing"), api.post("/dlq/retry", token="wrong")):
        assert found.headers["cache-control"] == "no-store"
        assert found.headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in found.headers
        assert "server" not in found.headers
