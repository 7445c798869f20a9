"""
Each way in which OpenSearch, or what lies before it, fails has a message of its own: the thing, the state found, the way out.

Each case is a server of its own on a real socket; what is compared is what a command prints: ``error:`` and ``hint:``.
"""

from __future__ import annotations

import contextlib
import gzip
import re
import socket
import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from idxctl.config.settings import OpenSearchSettings
from idxctl.core.errors import IdxctlError, OpenSearchRefused, OpenSearchUnintelligible, OpenSearchUnreachable
from idxctl.opensearch import answer_parts, failures
from idxctl.opensearch.client import connect
from support.certificates import EXPIRED, NOT_YET_VALID, Authority, server_context
from support.gateway import Gateway, reply
from support.rig import ITEMS_MAPPING, Rig
from support.stand_in import Refusal, StandIn

NOBODY = "http://127.0.0.1:1"
CREDENTIALS = "IDXCTL_OPENSEARCH_USERNAME and IDXCTL_OPENSEARCH_PASSWORD"
URL = r"IDXCTL_OPENSEARCH_URL or \[opensearch\] url"
BEHIND = "see whether OpenSearch runs and answers behind it"
LOOK = "look at the network between here and there"


@dataclass(frozen=True)
class Told:
    """What is to be read: regular expressions of the whole message and in the hint; HERE stands for the address."""

    message: str
    hint: str
    kind: type[IdxctlError] = OpenSearchRefused
    status: int = 1


def failure(url: str, **more) -> IdxctlError:
    """Ask what answers there, and return how that fails."""
    settings = OpenSearchSettings(urls=(url,), **{"request_timeout_seconds": 20.0, **more})
    with connect(settings) as client, pytest.raises(IdxctlError) as caught:
        client.ask("GET", "/_cluster/health", answer_parts.parsed)
    return caught.value


def reads(error: IdxctlError, told: Told, url: str) -> None:
    here = re.escape(url.partition("//")[2])
    assert re.fullmatch(told.message.replace("HERE", here), error.message), error.message
    assert re.search(told.hint, error.hint or ""), error.hint
    assert type(error) is told.kind
    assert error.exit_status == told.status


# --- what answers is not OpenSearch, or says no ------------------------------------------------------------------------

PAGE = "<html><head><style>p{}</style><title>Accès refusé</title></head><body><p>Réessayez à 3&nbsp;h</p></body></html>"
WORDS = '"Accès refusé Réessayez à 3 h"'
SECURITY = (
    b'{"error":{"type":"security_exception","reason":"no permissions for [indices:admin/create] and User [name=ix]"}}'
)
NO_OPENSEARCH = "a gateway at HERE has no OpenSearch to pass this on to, or none that is ready"


def html(body: bytes, status: int = 503, kind: str = "text/html", **headers: str) -> Refusal:
    return Refusal(status, body, {"content-type": kind, **headers})


ANSWERS = {
    # Pages in any encoding, declared or not, packed or not, whatever was asked for.
    "latin-1": (html(PAGE.encode("latin-1"), kind="text/html; charset=iso-8859-1"), Told(rf"{NO_OPENSEARCH} \(503\): {WORDS}", BEHIND)),
    "latin-1, undeclared": (html(PAGE.encode("latin-1")), Told(rf"{NO_OPENSEARCH} \(503\): {WORDS}", BEHIND)),
    "declared within": (
        html('<meta charset="shift_jis"><p>利用不可'.encode("shift_jis")),
        Told(rf'{NO_OPENSEARCH} \(503\): "利用不可"', BEHIND),
    ),
    "utf-16": (html(PAGE.encode("utf-16")), Told(rf"{NO_OPENSEARCH} \(503\): {WORDS}", BEHIND)),
    "utf-16, no mark": (html(PAGE.encode("utf-16-be")), Told(rf"{NO_OPENSEARCH} \(503\): {WORDS}", BEHIND)),
    "utf-32": (html(PAGE.encode("utf-32")), Told(rf"{NO_OPENSEARCH} \(503\): {WORDS}", BEHIND)),
    "utf-8, cut in a character": (html("é".encode() * 5_000), Told(rf'{NO_OPENSEARCH} \(503\): "é+"', BEHIND)),
    "an encoding that there is not": (
        html("é".encode("latin-1"), kind="text/html; charset=zlib_codec"),
        Told(rf'{NO_OPENSEARCH} \(503\): "é"', BEHIND),
    ),
    "gzip unasked": (html(gzip.compress(PAGE.encode()), **{"content-encoding": "gzip"}), Told(rf"{NO_OPENSEARCH} \(503\): {WORDS}", BEHIND)),
    "gzip undeclared": (html(gzip.compress(PAGE.encode())), Told(rf"{NO_OPENSEARCH} \(503\): {WORDS}", BEHIND)),
    "deflate": (html(zlib.compress(PAGE.encode()), **{"content-encoding": "deflate"}), Told(rf"{NO_OPENSEARCH} \(503\): {WORDS}", BEHIND)),
    "no gzip, though it says so": (
        html(b"\x1f\x8b none", **{"content-encoding": "gzip"}),
        Told("what answers at HERE says that its answer is gzip, and it is not", URL, OpenSearchUnintelligible, 5),
    ),
    "binary": (html(bytes(range(256)), kind="image/png"), Told(rf"{NO_OPENSEARCH} \(503\)", BEHIND)),
    "a page in place of an answer": (
        html(PAGE.encode("latin-1"), 200),
        Told(f"what answers GET /_cluster/health at HERE is not an answer of OpenSearch's: it is not JSON: {WORDS}", URL, OpenSearchUnintelligible, 5),
    ),
    "binary in place of an answer": (
        html(bytes(range(256)), 200),
        Told("what answers GET /_cluster/health at HERE is not an answer of OpenSearch's: it is not JSON", URL, OpenSearchUnintelligible, 5),
    ),
    # Gateways.
    "500": (html(b"<h1>Oops</h1>", 500), Told(r'a gateway at HERE failed \(500\): "Oops"', BEHIND)),
    "502": (html(b"", 502), Told(r"a gateway at HERE got no answer from OpenSearch that it understood \(502\)", BEHIND)),
    "503": (html(b"no healthy upstream", kind="text/plain"), Told(rf'{NO_OPENSEARCH} \(503\): "no healthy upstream"', BEHIND)),
    "504": (html(b"<html>", 504), Told(r"a gateway at HERE waited for OpenSearch in vain \(504\)", BEHIND)),
    "522": (html(b"", 522), Told(r"a gateway at HERE does not reach OpenSearch, or failed \(522\)", BEHIND)),
    "429": (html(b"slow down", 429), Told(r'a gateway at HERE says that these are too many requests \(429\): "slow down"', "raise its limit")),
    "408": (html(b"", 408), Told(r"a gateway at HERE waited for the rest of our request in vain \(408\)", LOOK)),
    "413": (html(b"", 413), Told(r"OpenSearch at HERE says the request is too large \(413\)", r"http\.max_content_length.*batch_bytes")),
    "a firewall": (
        html(b"<b>Request Rejected</b>", 403),
        Told(r'something on the way to OpenSearch at HERE does not allow this, such as a firewall \(403\): "Request Rejected"', "let idxctl's requests through"),
    ),
    "a proxy that wants credentials": (
        html(b"", 407, **{"proxy-authenticate": "Basic"}),
        Told(r"a proxy on the way to OpenSearch at HERE wants credentials of its own \(407\)", "without that proxy"),
    ),
    "a redirect": (
        html(b"", 302, location="https://user:secret@login.example:8443/sso?ticket=secret"),
        Told(r"what answers at HERE sends us elsewhere: to https://login\.example:8443 \(302\)", URL),
    ),
    "a redirect to nowhere": (html(b"", 307, location="http://[:x"), Told(r"what answers at HERE sends us elsewhere \(307\)", URL)),
    "404": (html(b"<h1>Not Found</h1>", 404), Told(r'what answers GET /_cluster/health at HERE is not OpenSearch, or does not know it \(404\): "Not Found"', URL)),
    # OpenSearch itself.
    "a wrong password": (
        html(b"Unauthorized", 401, "text/plain"),
        Told(r'OpenSearch at HERE does not accept the credentials \(401\): "Unauthorized"', CREDENTIALS),
    ),
    "a right that is missing": (
        html(SECURITY, 403, "application/json"),
        Told(r"OpenSearch at HERE does not allow this \(403\): security_exception: no permissions for \[indices:admin/create\] and User \[name=ix\]", CREDENTIALS),
    ),
    "a managed one": (
        html(b'{"Message":"User: anonymous is not authorized"}', 403, "application/json"),
        Told(r"OpenSearch at HERE does not allow this \(403\): User: anonymous is not authorized", CREDENTIALS),
    ),
    "security that is not set up": (
        html(b"OpenSearch Security not initialized.", kind="text/plain"),
        Told(r'OpenSearch at HERE has not set up its security yet \(503\): "OpenSearch Security not initialized\."', "securityadmin"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ANSWERS)
def test_an_answer_that_is_none_or_says_no(case):
    refusal, told = ANSWERS[case]
    with StandIn(NOBODY, lambda _: refusal) as server:
        reads(failure(server.url), told, server.url)


def test_a_redirect_tells_no_secret():
    with StandIn(NOBODY, lambda _: ANSWERS["a redirect"][0]) as server:
        error = failure(server.url)
    assert "secret" not in f"{error.message} {error.hint} {error.answered}"


def test_a_page_that_unpacks_to_much_more_is_read_to_its_beginning():
    with StandIn(NOBODY, lambda _: html(gzip.compress(b"x " * 50_000_000, 1))) as server:
        error = failure(server.url)
    assert len(error.message) < 500


# --- certificates, and TLS where there is none -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"), "authority")


SHOWS = "OpenSearch at HERE shows a certificate"
UNTRUSTED = Told(f"{SHOWS} that is not trusted: unable to get local issuer certificate", "name its authority: .*ca_file", OpenSearchUnreachable, 5)  # fmt: skip
CERTIFICATES = {
    "expired": ({"valid": EXPIRED}, Told(f"{SHOWS} that is out of its time: certificate has expired", "renew it there.*clock", OpenSearchUnreachable, 5)),
    "not yet valid": ({"valid": NOT_YET_VALID}, Told(f"{SHOWS} that is out of its time: certificate is not yet valid", "renew it there.*clock", OpenSearchUnreachable, 5)),
    "another host's": (
        {"hosts": ("search.example",)},
        Told(f"{SHOWS} for other names than the one it was asked by: .*'localhost'", "use a name in the URL that the certificate has", OpenSearchUnreachable, 5),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CERTIFICATES)
def test_a_certificate_that_is_not_good(authority, case):
    made, told = CERTIFICATES[case]
    certificate = authority.issue("server", *made.get("hosts", ("localhost",)), **{"valid": made["valid"]} if "valid" in made else {})  # fmt: skip
    with StandIn(NOBODY, context=server_context(certificate)) as server:
        reads(failure(server.url, ca_file=authority.path), told, server.url)


def test_a_certificate_of_an_authority_that_nobody_named(authority):
    with StandIn(NOBODY, context=server_context(authority.issue("server", "localhost"))) as server:
        reads(failure(server.url), UNTRUSTED, server.url)


def test_a_certificate_that_signed_itself_is_trusted_once_it_is_named(authority):
    certificate = authority.signed_by_itself("alone", "localhost")
    told = Told(f"{SHOWS} that is not trusted: self.signed certificate", "name that certificate: .*ca_file", OpenSearchUnreachable, 5)  # fmt: skip
    with StandIn(NOBODY, lambda _: Refusal(200, b"{}"), context=server_context(certificate)) as server:
        reads(failure(server.url), told, server.url)
        with connect(OpenSearchSettings(urls=(server.url,), ca_file=certificate[0])) as client:
            assert client.ask("GET", "/", answer_parts.parsed) == {}


def test_https_to_a_server_without_and_http_to_one_with_tls(authority):
    told = Told("OpenSearch at HERE does not speak TLS", "write http:// in the URL", OpenSearchUnreachable, 5)
    with StandIn(NOBODY) as server:
        url = server.url.replace("http:", "https:")
        reads(failure(url), told, url)
    told = Told("OpenSearch at HERE closed the connection without an answer; does it want https.", "write https:// in the URL", OpenSearchUnreachable, 5)  # fmt: skip
    with StandIn(NOBODY, context=server_context(authority.issue("server", "localhost"))) as server:
        url = server.url.replace("https:", "http:")
        reads(failure(url), told, url)


# --- nobody answers ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def server_that(does) -> Iterator[str]:
    """A server that does one thing with each connection, once it has heard something."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    with connection, contextlib.suppress(OSError):
                        connection.recv(65536)
                        does(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(30)


def reset(connection):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


CLOSED = "OpenSearch at HERE closed the connection without an answer; does it want https."
CONNECTIONS = {
    "closed": (lambda _: None, Told(CLOSED, "write https:// in the URL", OpenSearchUnreachable, 5)),
    "reset": (reset, Told(CLOSED, "write https:// in the URL", OpenSearchUnreachable, 5)),
    "broken off": (
        lambda one: one.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{"),
        Told("OpenSearch at HERE broke off within its answer", LOOK, OpenSearchUnreachable, 5),
    ),
    "the port of the transport": (
        lambda one: one.sendall(b"This is not an HTTP port"),
        Told('what answers at HERE does not speak HTTP: "This is not an HTTP port"', "9200", OpenSearchUnintelligible, 5),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CONNECTIONS)
def test_a_connection_that_ends(case):
    does, told = CONNECTIONS[case]
    with server_that(does) as url:
        reads(failure(url), told, url)


def test_nobody_answers_in_time_and_nobody_takes_a_connection():
    released = threading.Event()
    told = Told("OpenSearch at HERE did not answer within 0.2 s", r"overloaded.*\[opensearch\] request_timeout", OpenSearchUnreachable, 5)  # fmt: skip
    with server_that(lambda _: released.wait(30)) as url:
        reads(failure(url, request_timeout_seconds=0.2), told, url)
        tls = url.replace("http:", "https:")  # no handshake
        told = Told("OpenSearch at HERE did not accept a connection in time", "firewall", OpenSearchUnreachable, 5)
        reads(failure(tls, request_timeout_seconds=0.2), told, tls)
        released.set()


def test_nobody_listens_and_nobody_has_that_name():
    told = Told("OpenSearch at HERE refuses connections", "is it running.*IDXCTL_OPENSEARCH_URL", OpenSearchUnreachable, 5)  # fmt: skip
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound, and not listening
        url = f"http://127.0.0.1:{held.getsockname()[1]}"
        reads(failure(url), told, url)
    told = Told("OpenSearch at HERE cannot be found: no such host name", URL, OpenSearchUnreachable, 5)
    reads(failure("http://nobody.invalid:9200"), told, "http://nobody.invalid:9200")


def test_a_name_server_that_is_away_is_told_from_a_name_that_there_is_not():
    away = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
    assert failures.network(away) is failures.Network.NO_NAMES
    assert failures.network(socket.gaierror(socket.EAI_NONAME, "")) is failures.Network.NO_HOST


# --- what is read where people look ------------------------------------------------------------------------------------


@pytest.fixture
def command_line(items: Rig, idxctl):
    return idxctl.use(database=items.database, opensearch=items.opensearch, config=items.config)


def test_an_index_that_no_node_takes_is_said_with_the_rule_and_nothing_of_it_stays(items: Rig, command_line):
    mine = {"index.routing.allocation.require._name": "nobody", "number_of_replicas": 0}
    items.configure(mapping={"settings": mine, "mappings": ITEMS_MAPPING["mappings"]})
    live = items.generation().name
    done = command_line("reindex", "--yes")
    assert done.status == 4, done.stderr
    error, hint = done.stderr[done.stderr.index("error:") :].split("hint:")
    assert f"no node of OpenSearch takes shard 0 of {items.index}-000002" in error
    assert '[index.routing.allocation.require] filters [_name:"nobody"]' in " ".join(error.split())
    assert "index.routing.allocation in the mapping file" in " ".join(hint.split())
    assert list(items.ask("GET", f"/{items.index}-*/_alias")) == [live]


def test_a_command_prints_the_thing_the_state_and_the_way_out(items: Rig, command_line):
    with Gateway(items.opensearch) as gateway:
        gateway.mode, gateway.dislikes = "403", lambda _: True
        done = command_line.use(opensearch=gateway.url)("reindex", "--yes")
    assert done.status == 1
    assert "error: something on the way to OpenSearch at 127.0.0.1:" in done.stderr
    assert "The requested URL was rejected" in done.stderr
    assert "hint:  have it let idxctl's requests through" in done.stderr


@pytest.mark.parametrize("level", ["request", "item"])
def test_a_right_that_is_missing_pauses_the_index_and_names_the_right(items: Rig, monkeypatch, level):
    """403 of the whole request, and of each item in an answer with 200."""
    refusal = b'{"type":"security_exception","reason":"no permissions for [indices:data/write/bulk[s]]"}'

    def answer(handler, gateway: Gateway) -> None:
        if level == "request":
            reply(handler, 403, b'{"error":%b,"status":403}' % refusal, "application/json")
            return
        ids = re.findall(rb'^\{"index":\{"_id":"([^"]*)"', gateway.disliked[-1].body, re.MULTILINE)
        each = b",".join(b'{"index":{"_id":"%b","status":403,"error":%b}}' % (one, refusal) for one in ids)
        reply(handler, 200, b'{"errors":true,"items":[%b]}' % each, "application/json")

    monkeypatch.setattr("support.gateway.ANSWERS", {"no right": answer})
    items.sql("UPDATE items SET name = name || '!'")
    with Gateway(items.opensearch) as gateway, items.by_way_of(opensearch=gateway.url):
        gateway.mode, gateway.dislikes = "no right", lambda seen: seen.is_bulk
        items.hand().step()
    why = items.one("SELECT reason FROM opensearch_indexing_pauses WHERE index_name = %s", items.index)
    assert "no permissions for [indices:data/write/bulk[s]]" in str(why)
    assert items.letters() == {}
    assert items.one("SELECT max(attempts) FROM opensearch_indexing_queue") == 0
