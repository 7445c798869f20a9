"""The client against a real OpenSearch, directly and behind a stand-in that ends TLS and checks who is asking."""

# ruff: noqa: SIM117 - apart, it is plain which call is expected to fail

from __future__ import annotations

import base64
import contextlib
import gzip
import logging
import re
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from idxctl.config.settings import OpenSearchSettings
from idxctl.core.errors import ConfigError, OpenSearchRefused, OpenSearchUnintelligible, OpenSearchUnreachable
from idxctl.core.secret import Secret
from idxctl.opensearch import answer_parts
from idxctl.opensearch.client import connect
from support.certificates import Authority, server_context
from support.stand_in import Refusal, StandIn

ACCESS_KEY, SECRET_KEY = "AKIDEXAMPLE", "wJalrXUtnFEMI-not-a-real-one"
BULK = '{"index":{"_id":"1"}}\n{"title":"Žuta bicikla, 12,50 €"}\n{"delete":{"_id":"none"}}\n'.encode()
SENT = ["1", "none"]


def ask(client, method, path, **options):
    """Ask anything, and parse what is answered."""
    return client.ask(method, path, answer_parts.parsed, **options)


# --- stand-ins ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"), "good-authority")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("other"), "another-authority")


@pytest.fixture
def tls(authority, opensearch_url):
    """Make a stand-in with a certificate of the good authority."""
    with contextlib.ExitStack() as stack:

        def make(gate=lambda asked: None, *, hosts=("localhost",), client_authority=None):
            context = server_context(authority.issue("server", *hosts), client_authority=client_authority)
            return stack.enter_context(StandIn(opensearch_url, gate, context))

        yield make


@pytest.fixture
def answering(opensearch_url):
    """Make a stand-in that gives one answer to everything."""
    with contextlib.ExitStack() as stack:

        def make(status, body=b"", **headers):
            refusal = Refusal(status, body, {name.replace("_", "-"): value for name, value in headers.items()})
            return stack.enter_context(StandIn(opensearch_url, lambda asked: refusal))

        yield make


def expects(header):
    """Return a gate that turns away whoever does not send this Authorization."""

    def gate(asked):
        if asked.headers.get("authorization") != header:
            return Refusal(401, b"Unauthorized", {"content-type": "text/plain"})
        return None

    return gate


def settings(url, **more):
    return OpenSearchSettings(urls=(url,), **more)


@pytest.fixture
def index(opensearch_url, request):
    """Make an index of this test, and remove it."""
    name = "client-" + re.sub(r"[^a-z0-9]+", "-", request.node.name.lower())[:80].strip("-")
    with connect(settings(opensearch_url)) as client:
        ask(client, "PUT", f"/{name}", body={"settings": {"number_of_shards": 1, "number_of_replicas": 0}})
        yield name
        ask(client, "DELETE", f"/{name}")


# --- plain requests ----------------------------------------------------------------------------------------------------


def test_info_names_distribution_and_version_and_asks_once(opensearch_url):
    with StandIn(opensearch_url) as stand_in, connect(settings(stand_in.url)) as client:
        distribution, version = client.info()
        assert client.info() == (distribution, version)
    assert distribution == "opensearch"
    assert len(version) == 3
    assert version[0] >= 2
    assert len(stand_in.seen) == 1


def test_nothing_is_sent_when_a_client_is_made():
    connect(settings("http://127.0.0.1:1")).close()


def test_a_bulk_body_arrives_byte_for_byte_and_the_answer_is_small(opensearch_url, index):
    with StandIn(opensearch_url) as stand_in, connect(settings(stand_in.url)) as client:
        refused = client.bulk(index, BULK, SENT, deleted={"none"})
        sent = stand_in.seen[-1]
        stored = ask(client, "GET", f"/{index}/_doc/1")
    assert sent.body == BULK
    assert sent.headers["content-type"] == "application/x-ndjson"
    assert "filter_path" in sent.path
    assert refused == []
    assert stored["_source"]["title"] == "Žuta bicikla, 12,50 €"


def test_an_answer_is_bytes_as_they_came(opensearch_url, index):
    with connect(settings(opensearch_url)) as client:
        client.bulk(index, BULK, SENT, deleted={"none"}, params={"refresh": True})
        text = client.ask("POST", f"/{index}/_mget", bytes.decode, body={"ids": ["1"]})
    assert isinstance(text, str)
    assert '"Žuta bicikla, 12,50 €"' in text


def test_head_says_whether_a_thing_is_there(opensearch_url, index):
    with connect(settings(opensearch_url)) as client:
        assert client.exists(f"/{index}") is True
        assert client.exists("/client-none-such") is False


def test_a_compressed_body_is_smaller_and_means_the_same(opensearch_url, index):
    body = BULK * 200
    with StandIn(opensearch_url) as stand_in, connect(settings(stand_in.url, compress=True)) as client:
        assert client.bulk(index, body, SENT * 200, deleted={"none"}) == []
    assert gzip.decompress(stand_in.seen[-1].body) == body
    assert len(stand_in.seen[-1].body) < len(body) / 4


def test_the_servers_own_timeout_reaches_the_server(opensearch_url, index):
    with StandIn(opensearch_url) as stand_in, connect(settings(stand_in.url)) as client:
        ask(client, "GET", f"/_cluster/health/{index}", params={"timeout": "5s", "local": True, "level": None})
    assert stand_in.seen[-1].path == f"/_cluster/health/{index}?timeout=5s&local=true"


def test_threads_share_a_client_and_its_connections_stay_open(opensearch_url, index):
    with StandIn(opensearch_url) as stand_in, connect(settings(stand_in.url)) as client:
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: ask(client, "GET", f"/{index}/_count")["count"], range(80)))
    assert answers == [0] * 80
    assert stand_in.connections <= 8


def test_a_deprecation_header_is_no_python_warning(answering):
    stand_in = answering(200, b"{}", warning='299 OpenSearch-2.0 "old"')
    with connect(settings(stand_in.url)) as client:
        assert ask(client, "GET", "/x") == {}


# --- errors ------------------------------------------------------------------------------------------------------------


def test_an_error_answer_tells_status_type_and_reason(opensearch_url):
    with connect(settings(opensearch_url)) as client, pytest.raises(OpenSearchRefused) as caught:
        ask(client, "GET", "/client-none-such/_count")
    refused = caught.value
    assert (refused.status, refused.error_type) == (404, "index_not_found_exception")
    assert "client-none-such" in refused.reason
    assert "404" in str(refused)
    assert refused.body["status"] == 404


def test_an_empty_413_is_a_refusal(answering):
    with connect(settings(answering(413).url)) as client, pytest.raises(OpenSearchRefused) as caught:
        client.bulk("x", BULK, SENT, deleted={"none"})
    assert (caught.value.status, caught.value.error_type, caught.value.body) == (413, "", None)


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_busy_answer_is_a_refusal_and_is_not_sent_again(answering, status):
    stand_in = answering(status, b'{"error":{"type":"some_exception","reason":"busy"}}')
    with connect(settings(stand_in.url)) as client, pytest.raises(OpenSearchRefused) as caught:
        client.bulk("x", BULK, SENT, deleted={"none"})
    assert (caught.value.status, caught.value.error_type) == (status, "some_exception")
    assert len(stand_in.seen) == 1


def test_a_page_of_a_proxy_is_not_taken_for_an_answer(answering):
    stand_in = answering(200, b"<html>Sign in</html>", content_type="text/html")
    with connect(settings(stand_in.url)) as client, pytest.raises(OpenSearchUnintelligible) as caught:
        ask(client, "GET", "/")
    assert "not JSON" in str(caught.value)
    assert "Sign in" in caught.value.answered
    assert "IDXCTL_OPENSEARCH_URL" in caught.value.hint


def test_something_else_that_speaks_json_is_not_opensearch(answering):
    with (
        connect(settings(answering(200, b'{"hello":"world"}').url)) as client,
        pytest.raises(OpenSearchUnintelligible) as caught,
    ):
        client.info()
    assert "not OpenSearch" in str(caught.value)


def test_a_page_with_an_error_status_is_told_from_an_error_of_opensearchs_own(answering):
    stand_in = answering(502, b"<html>\n<b>Bad Gateway</b>", content_type="text/html; charset=latin1")
    with connect(settings(stand_in.url)) as client, pytest.raises(OpenSearchRefused) as caught:
        client.bulk("x", BULK, SENT, deleted={"none"})
    assert (caught.value.error_type, caught.value.answered) == ("", "502 text/html: Bad Gateway")


def test_a_redirect_is_not_followed(answering):
    stand_in = answering(302, location="http://127.0.0.1:1/login")
    with connect(settings(stand_in.url)) as client, pytest.raises(OpenSearchRefused) as caught:
        ask(client, "GET", "/")
    assert caught.value.status == 302


def test_nobody_there_is_unreachable_with_host_and_way_out():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound and not listening: refuses
        port = held.getsockname()[1]
        with connect(settings(f"http://127.0.0.1:{port}")) as client, pytest.raises(OpenSearchUnreachable) as caught:
            ask(client, "GET", "/")
    assert str(caught.value) == f"OpenSearch at 127.0.0.1:{port} refuses connections"
    assert "IDXCTL_OPENSEARCH_URL" in caught.value.hint
    assert caught.value.exit_status == 5


def test_a_name_that_does_not_exist_says_so():
    with connect(settings("http://nobody.invalid:9200")) as client, pytest.raises(OpenSearchUnreachable) as caught:
        ask(client, "GET", "/")
    assert "nobody.invalid:9200 cannot be found" in str(caught.value)


def test_no_answer_in_time_is_unreachable():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with connect(settings(url)) as client, pytest.raises(OpenSearchUnreachable) as caught:
            ask(client, "GET", "/", timeout_seconds=0.05)
    assert "did not answer within 0.05 s" in str(caught.value)
    assert caught.value.slow


def test_a_connection_cut_in_the_middle_is_unreachable():
    with socket.create_server(("127.0.0.1", 0)) as cutting:

        def cut():
            connection, _ = cutting.accept()
            connection.recv(10)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            connection.close()

        thread = threading.Thread(target=cut)
        thread.start()
        url = f"http://127.0.0.1:{cutting.getsockname()[1]}"
        with connect(settings(url)) as client, pytest.raises(OpenSearchUnreachable) as caught:
            ask(client, "POST", "/x", body=b"y" * 1000)
        thread.join()
    assert "closed the connection" in str(caught.value)


def test_nothing_of_a_request_is_said_in_the_log(caplog):
    with caplog.at_level(logging.INFO), connect(settings("http://127.0.0.1:1")) as client:
        with pytest.raises(OpenSearchUnreachable):
            ask(client, "POST", "/x", body=b"a document")
    assert caplog.text == ""


def test_a_dead_host_is_passed_over(opensearch_url):
    both = OpenSearchSettings(urls=("http://127.0.0.1:1", opensearch_url))
    with connect(both) as client:
        assert not [error for error in (failure(client) for _ in range(20)) if error]


def failure(client):
    """Ask once and return what went wrong, or None."""
    try:
        ask(client, "GET", "/")
    except OpenSearchUnreachable as error:
        return error


def test_a_host_that_does_not_answer_in_time_is_passed_over_too(opensearch_url):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        urls = (f"http://127.0.0.1:{silent.getsockname()[1]}", opensearch_url)
        with connect(OpenSearchSettings(urls=urls, request_timeout_seconds=0.5)) as client:
            assert not [error for error in (failure(client) for _ in range(10)) if error]


def test_with_every_host_dead_each_request_still_tries():
    both = OpenSearchSettings(urls=("http://127.0.0.1:1", "http://127.0.0.1:2"))
    with connect(both) as client:
        for _ in range(6):
            with pytest.raises(OpenSearchUnreachable):
                ask(client, "GET", "/")


def test_describe_names_every_host():
    client = connect(OpenSearchSettings(urls=("https://a.example", "http://[::1]:9201/prefix")))
    assert client.describe() == "OpenSearch at a.example:443, [::1]:9201"


def test_a_prefix_in_the_url_stands_before_every_path(opensearch_url):
    def strip(asked):
        assert asked.path.startswith("/search/")
        asked.path = asked.path.removeprefix("/search")

    with StandIn(opensearch_url, strip) as stand_in, connect(settings(stand_in.url + "/search")) as client:
        assert client.info()[0] == "opensearch"


# --- authentication ----------------------------------------------------------------------------------------------------

BASIC = "Basic " + base64.b64encode("søk:p:a ss".encode()).decode()


@pytest.mark.parametrize(
    ("header", "good", "bad"),
    [
        (BASIC, {"username": "søk", "password": Secret("p:a ss")}, {"username": "søk", "password": Secret("hunter2")}),
        ("Bearer t0ken", {"bearer_token": Secret("t0ken")}, {"bearer_token": Secret("hunter2")}),
        ("ApiKey a2V5", {"api_key": Secret("a2V5")}, {"api_key": Secret("hunter2")}),
    ],
    ids=["basic", "bearer", "api-key"],
)
def test_credentials_are_sent_and_wrong_ones_explained(tls, authority, index, header, good, bad):
    stand_in = tls(expects(header))
    with connect(settings(stand_in.url, ca_file=authority.path, **good)) as client:
        assert client.bulk(index, BULK, SENT, deleted={"none"}) == []
    for wrong in (bad, {}):
        with connect(settings(stand_in.url, ca_file=authority.path, **wrong)) as client:
            with pytest.raises(OpenSearchRefused) as caught:
                client.bulk(index, BULK, SENT, deleted={"none"})
        assert caught.value.status == 401
        assert "does not accept the credentials" in str(caught.value)
        assert "IDXCTL_OPENSEARCH_PASSWORD" in caught.value.hint
        assert "hunter2" not in f"{caught.value!r} {caught.value.hint} {caught.value.__cause__!r} {client!r}"


def test_a_missing_right_names_what_was_refused(answering):
    body = (
        b'{"error":{"type":"security_exception","reason":"no permissions for [indices:data/write/bulk]"},"status":403}'
    )
    with connect(settings(answering(403, body).url)) as client, pytest.raises(OpenSearchRefused) as caught:
        client.bulk("x", BULK, SENT, deleted={"none"})
    assert (caught.value.status, caught.value.error_type) == (403, "security_exception")
    assert "indices:data/write/bulk" in str(caught.value)
    assert "IDXCTL_OPENSEARCH_USERNAME" in caught.value.hint


def test_a_block_is_not_taken_for_a_missing_right(answering):
    body = b'{"error":{"type":"cluster_block_exception","reason":"index [x] blocked"},"status":403}'
    with connect(settings(answering(403, body).url)) as client, pytest.raises(OpenSearchRefused) as caught:
        client.bulk("x", BULK, SENT, deleted={"none"})
    assert caught.value.hint is None


# --- TLS ---------------------------------------------------------------------------------------------------------------


def test_a_private_authority_is_trusted_when_named(tls, authority):
    with connect(settings(tls().url, ca_file=authority.path)) as client:
        assert client.info()[0] == "opensearch"


@pytest.mark.parametrize("named", ["none", "another"])
def test_a_certificate_of_an_unknown_authority_is_refused(tls, stranger, named):
    more = {"ca_file": stranger.path} if named == "another" else {}
    stand_in = tls()
    with connect(settings(stand_in.url, **more)) as client, pytest.raises(OpenSearchUnreachable) as caught:
        ask(client, "GET", "/")
    assert f"localhost:{stand_in.port} shows a certificate that is not trusted" in str(caught.value)
    assert "ca_file" in caught.value.hint
    assert "verify" in caught.value.hint
    assert stand_in.seen == []


def test_a_certificate_of_another_host_is_refused(tls, authority):
    stand_in = tls(hosts=("search.example",))
    with (
        connect(settings(stand_in.url, ca_file=authority.path)) as client,
        pytest.raises(OpenSearchUnreachable) as caught,
    ):
        ask(client, "GET", "/")
    assert "for other names than the one it was asked by" in str(caught.value)
    assert stand_in.seen == []


def test_verify_false_trusts_anybody_without_a_warning(tls, recwarn):
    with connect(settings(tls(hosts=("search.example",)).url, verify=False)) as client:
        assert client.info()[0] == "opensearch"
    assert not recwarn.list


@pytest.mark.parametrize("verify", [True, False])
def test_a_client_certificate_is_shown(tls, authority, verify):
    stand_in = tls(client_authority=authority.path)
    certificate, key = authority.issue("indexer")
    trust = {"ca_file": authority.path} if verify else {"verify": False}
    with connect(settings(stand_in.url, client_cert=certificate, client_key=key, **trust)) as client:
        assert client.info()[0] == "opensearch"
    assert stand_in.seen[0].client == "indexer"


@pytest.mark.parametrize("shown", ["none", "another"])
def test_without_the_right_client_certificate_nothing_gets_through(tls, authority, stranger, shown):
    stand_in = tls(client_authority=authority.path)
    more = {}
    if shown == "another":
        more["client_cert"], more["client_key"] = stranger.issue("intruder")
    with connect(settings(stand_in.url, ca_file=authority.path, **more)) as client:
        with pytest.raises(OpenSearchUnreachable) as caught:
            ask(client, "GET", "/")
    assert "client certificate" in str(caught.value)
    assert "client_cert" in caught.value.hint
    assert stand_in.seen == []


def test_a_client_certificate_with_anothers_key_is_a_configuration_error(authority):
    certificate, _ = authority.issue("one")
    _, key = authority.issue("two")
    with pytest.raises(ConfigError) as caught:
        connect(settings("https://localhost:1", client_cert=certificate, client_key=key))
    assert "client_cert or client_key" in str(caught.value)


def test_a_ca_file_that_holds_no_certificate_is_a_configuration_error(tmp_path):
    (tmp_path / "ca.pem").write_text("nothing")
    with pytest.raises(ConfigError) as caught:
        connect(settings("https://localhost:1", ca_file=tmp_path / "ca.pem"))
    assert "ca_file" in str(caught.value)


def test_https_to_a_server_without_tls_says_so(opensearch_url):
    with connect(settings(opensearch_url.replace("http:", "https:"))) as client:
        with pytest.raises(OpenSearchUnreachable) as caught:
            ask(client, "GET", "/")
    assert "does not speak TLS" in str(caught.value)


def test_http_to_a_server_with_tls_asks_about_https(tls):
    with connect(settings(tls().url.replace("https:", "http:"))) as client:
        with pytest.raises(OpenSearchUnreachable) as caught:
            ask(client, "GET", "/")
    assert "https" in str(caught.value)


# --- AWS ---------------------------------------------------------------------------------------------------------------


def signed_by(secret, *, region="eu-west-1", service="es"):
    """Return a gate that computes the signature of what arrived and compares."""
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    signer = SigV4Auth(Credentials(ACCESS_KEY, secret), service, region)

    def gate(asked):
        given = asked.headers.get("authorization", "")
        names = re.search(r"SignedHeaders=([^,]*)", given)
        wanted = None
        if names and {"host", "x-amz-date", "x-amz-content-sha256"} <= set(names.group(1).split(";")):
            signed = {name: asked.headers[name] for name in names.group(1).split(";")}
            url = f"https://{asked.headers['host']}{asked.path}"
            # The hash that the client claims is left out, so that it is computed from the body that arrived.
            claimed = signed.pop("x-amz-content-sha256")
            request = AWSRequest(asked.method, url, data=asked.body, headers=signed)
            if claimed == signer.payload(request):
                request.headers["x-amz-content-sha256"] = claimed
                request.context["timestamp"] = asked.headers["x-amz-date"]
                wanted = signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request)
        if wanted is None or f"Signature={wanted}" not in given:
            return Refusal(403, b'{"message":"The request signature we calculated does not match"}')
        return None

    return gate


@pytest.fixture
def aws(monkeypatch):
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return OpenSearchSettings(aws_region="eu-west-1")


@pytest.mark.parametrize("compress", [False, True])
def test_a_ready_made_bulk_body_is_signed_for_aws(tls, authority, aws, index, compress):
    stand_in = tls(signed_by(SECRET_KEY))
    with connect(replace(aws, urls=(stand_in.url,), ca_file=authority.path, compress=compress)) as client:
        assert client.bulk(index, BULK, SENT, deleted={"none"}) == []
        assert ask(client, "GET", f"/{index}/_doc/1")["_source"]["title"].startswith("Žuta")
    body = stand_in.seen[0].body
    assert (gzip.decompress(body) if compress else body) == BULK


def test_a_signature_with_another_secret_is_refused(tls, authority, aws, index):
    with connect(replace(aws, urls=(tls(signed_by("another")).url,), ca_file=authority.path)) as client:
        with pytest.raises(OpenSearchRefused) as caught:
            client.bulk(index, BULK, SENT, deleted={"none"})
    assert caught.value.status == 403
    assert SECRET_KEY not in f"{caught.value} {caught.value.hint}"


def test_a_body_changed_on_the_way_no_longer_fits_its_signature(tls, authority, aws, index):
    check = signed_by(SECRET_KEY)

    def tampering(asked):
        return check(replace(asked, body=asked.body.replace(b"12,50", b"12,51")))

    with connect(replace(aws, urls=(tls(tampering).url,), ca_file=authority.path)) as client:
        with pytest.raises(OpenSearchRefused):
            client.bulk(index, BULK, SENT, deleted={"none"})


def test_serverless_is_signed_as_its_own_service(tls, authority, aws, index):
    stand_in = tls(signed_by(SECRET_KEY, service="aoss"))
    with connect(replace(aws, urls=(stand_in.url,), ca_file=authority.path, aws_service="aoss")) as client:
        assert client.bulk(index, BULK, SENT, deleted={"none"}) == []


def test_no_aws_credentials_is_a_configuration_error(aws, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with connect(aws) as client, pytest.raises(ConfigError) as caught:
        ask(client, "GET", "/")
    assert "no AWS credentials" in str(caught.value)


def test_signing_without_botocore_names_the_extra(aws, monkeypatch):
    monkeypatch.setitem(sys.modules, "botocore", None)
    with pytest.raises(ConfigError) as caught:
        connect(aws)
    assert "pip install 'idxctl[aws]'" in caught.value.hint


def test_settings_do_not_show_the_password():
    assert "hunter2" not in repr(settings("http://localhost:9200", username="u", password=Secret("hunter2")))
