"""Who may ask over HTTP, as configuration and file of tokens say it, and where to listen."""

from __future__ import annotations

import pytest

from idxctl.config import bearers
from idxctl.config.listing import listing
from idxctl.config.settings import Bearer
from idxctl.core.errors import ConfigError
from idxctl.core.secret import Secret
from idxctl.web.limits import Buckets
from idxctl.web.server import Address, parse_address
from support.loaded import problems


def test_without_a_word_nobody_may_change_anything_and_only_this_machine_is_heard(load):
    http = load().http
    assert (http.listen, http.bearers, http.read_only) == ("127.0.0.1:9321", (), False)


def test_every_key_is_read_and_the_environment_wins(load):
    text = '[http]\nlisten = "[::1]:80"\ntoken = "from-the-file"\nread_only = true\nanonymous_read = true\nrate_limit = 5\nmax_body = 10\n'
    read = load(text, IDXCTL_HTTP_TOKEN="from-the-environment", IDXCTL_HTTP_RATE_LIMIT="7")
    http = read.http
    assert (http.listen, http.read_only, http.rate_limit, http.max_body) == ("[::1]:80", True, 7, 10)
    assert http.anonymous_read
    assert http.bearers == (Bearer("operator", "operator", Secret("from-the-environment")),)
    shown = {name: value for name, value, _ in listing(read)}
    assert shown["http.bearers"] == ["operator (operator)"]
    assert "from-the" not in repr(read) + str(shown)


@pytest.mark.parametrize("line", ["alice operator s3cret:with,marks", "alice,operator,s3cret:with,marks", "alice:operator:s3cret:with,marks", " alice , operator , s3cret:with,marks "])  # fmt: skip
def test_a_line_is_parted_by_blanks_commas_or_colons(line):
    assert bearers.parse(f"# name role token\n\n{line}\n") == (
        [Bearer("alice", "operator", Secret("s3cret:with,marks"))],
        [],
    )


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("alice operator", 1, "is not a name, a role and a token"),
        ("alice admin hunter2", 1, "its second word is no role"),
        ("alice hunter2 operator", 1, "its second word is no role"),
        ("a operator hunter2\nb viewer hunter2", 2, "its token stands there twice"),
        ("a operator hunter2\na viewer hunter3", 2, "the name 'a' stands there twice"),
        ("a operator hunter2 hunter3", 1, "its token holds a blank"),
        ("a operator hunter\u00fc", 1, "its token holds a blank or a character"),
        ("# nobody\n", 0, "names nobody"),
        ("a operator sha256$hunter$2", 1, "begins like a hash and is none"),
    ],
)
def test_a_line_that_cannot_be_used_is_named_and_no_token_shown(load, tmp_path, text, line, what):
    file = tmp_path / "tokens"
    file.write_text(text, encoding="utf-8")
    file.chmod(0o600)
    (told,) = problems(load, IDXCTL_HTTP_TOKENS_FILE=str(file))
    assert what in told
    assert (f"line {line}" in told) == (line > 0)
    assert "hunter" not in told


def test_a_file_that_everybody_may_write_is_refused_and_one_that_others_may_read_remarked_on(load, tmp_path):
    file = tmp_path / "tokens"
    file.write_text("alice operator token")
    file.chmod(0o600)
    assert load(IDXCTL_HTTP_TOKENS_FILE=str(file)).http.remarks == ()
    file.chmod(0o644)
    (remark,) = load(IDXCTL_HTTP_TOKENS_FILE=str(file)).http.remarks
    assert "chmod 600" in str(remark)
    file.chmod(0o666)
    assert "can be written by everybody" in problems(load, IDXCTL_HTTP_TOKENS_FILE=str(file))[0]
    assert "cannot read" in problems(load, IDXCTL_HTTP_TOKENS_FILE="/no/such/file")[0]


def test_a_hash_stands_for_its_token_and_for_nothing_else():
    line = bearers.hash_line("a-token-of-this-test")
    assert line != bearers.hash_line("a-token-of-this-test")
    (alice,), wrong = bearers.parse(f"alice operator {line}\n")
    assert wrong == []
    known = bearers.Hashed.of(alice.token)
    assert known.matches(b"a-token-of-this-test")
    assert not known.matches(line.encode())
    assert not bearers.Hashed.of(Secret("another")).matches(b"a-token-of-this-test")
    assert [bearers.is_short(Secret(one)) for one in (line, "x" * 15, "x" * 16)] == [False, True, False]


def test_a_hash_that_was_cut_short_is_no_token(load):
    assert "is none" in problems(load, IDXCTL_HTTP_TOKEN="sha256$00$00")[0]


def test_a_token_that_no_header_carries_is_refused(load):
    assert "no header carries" in problems(load, IDXCTL_HTTP_TOKEN="two words")[0]


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:9321", Address("127.0.0.1", 9321)),
        ("[::1]:80", Address("::1", 80)),
        ("localhost:0", Address("localhost", 0)),
        (":9321", Address("0.0.0.0", 9321)),
        ("9321", Address("127.0.0.1", 9321)),
    ],
)
def test_where_to_listen(text, address):
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["", "localhost", "::1:80", "a:b", "a:70000", "http://a:80", "a:-1", "[]:80"])
def test_what_is_no_address(text):
    with pytest.raises(ConfigError, match="not HOST:PORT"):
        parse_address(text)


def test_a_bucket_empties_fills_and_is_a_clients_own():
    now = [0.0]
    buckets = Buckets(2, clock=lambda: now[0])
    assert [buckets.take("a") for _ in range(5)] == [0, 0, 0, 0, 0.5]
    assert buckets.take("b") == 0
    now[0] = 0.5
    assert [buckets.take("a"), buckets.take("a") > 0] == [0, True]
    now[0] = 100
    assert [bool(buckets.take("a")) for _ in range(5)] == [False] * 4 + [True]


def test_clients_not_heard_of_are_forgotten():
    buckets = Buckets(1)
    for number in range(5000):
        buckets.take(str(number))
    assert len(buckets._left) <= 1025
