"""Reading the configuration: precedence, sources, and every problem at once."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idxctl.config import trust
from idxctl.config.files import ConfigFile, Files
from idxctl.config.indexes import Indexes, index_name_problem
from idxctl.config.lines import line_numbers
from idxctl.config.listing import listing
from idxctl.config.load import load as load_settings
from idxctl.config.problems import Findings, InvalidConfig
from idxctl.config.settings import WatchSettings
from idxctl.core.secret import Secret

SECRET = "hunter2-do-not-show"
SERVERS = {"IDXCTL_DATABASE_URL": "postgresql://localhost/shop"}
INDEX = '[indexes.products]\ndocument = "SELECT id AS document_id, doc AS document FROM p"\n'


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Write an idxctl.toml and what it names, and read it."""
    monkeypatch.chdir(tmp_path)

    def load(text="", *, environ=None, flags=None, files=None, **more):
        for name, content in (files or {}).items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        (tmp_path / "idxctl.toml").write_bytes(text if isinstance(text, bytes) else text.encode())
        return load_settings(environ=environ or {}, flags=flags or {}, **more)

    return load


@pytest.fixture
def problems(load):
    """Read a configuration that is wrong and return its problems, one string each; no secret may be in them."""

    def problems(*arguments, **more):
        with pytest.raises(InvalidConfig) as caught:
            load(*arguments, **more)
        assert SECRET not in f"{caught.value} {caught.value.hint} {caught.value!r}"
        assert caught.value.exit_status == 4
        return [str(problem) for problem in caught.value.problems]

    return problems


# --- what is read ------------------------------------------------------------------------------------------------------


def test_flag_beats_environment_beats_file_beats_default(load):
    text = "[worker]\nworkers = 2\nbatch_size = 20\nqueue_size = 200\n"
    environ = {"IDXCTL_WORKER_WORKERS": "3", "IDXCTL_WORKER_BATCH_SIZE": "30"}
    read = load(text, environ=environ, flags={"worker.workers": 4, "worker.batch_size": None})
    assert (read.worker.workers, read.worker.batch_size, read.worker.queue_size, read.worker.max_attempts) == (
        4,
        30,
        200,
        3,
    )
    assert read.sources["worker.workers"] == "--workers"
    assert read.sources["worker.batch_size"] == "IDXCTL_WORKER_BATCH_SIZE"
    assert read.sources["worker.queue_size"] == "idxctl.toml line 4"
    assert "worker.max_attempts" not in read.sources


def test_an_empty_variable_is_one_that_is_not_set(load):
    assert load("[worker]\nworkers = 2\n", environ={"IDXCTL_WORKER_WORKERS": ""}).worker.workers == 2


def test_every_section_is_read(load):
    text = """
        [database]
        url = "postgresql://app:pw@db1/shop"
        schema = "search"
        [opensearch]
        url = ["https://os1:9200/", "https://os2:9200"]
        username = "indexer"
        password = "pw"
        verify = false
        compress = true
        request_timeout = "1m30s"
        [worker]
        drain_timeout = "10s"
        lease = "1m45s"
        age_limit = "2m"
        batch_bytes = 1000000
        max_attempts = 5
        [dlq]
        adopt_index = "products"
    """
    read = load(text)
    assert read.database.url == Secret("postgresql://app:pw@db1/shop")
    assert read.database.schema == "search"
    assert read.opensearch.urls == ("https://os1:9200", "https://os2:9200")
    assert (read.opensearch.username, read.opensearch.password) == ("indexer", Secret("pw"))
    assert (read.opensearch.verify, read.opensearch.compress, read.opensearch.request_timeout_seconds) == (
        False,
        True,
        90,
    )
    worker = read.worker
    assert (worker.drain_timeout_seconds, worker.lease_seconds, worker.age_limit_seconds) == (10, 105, 120)
    assert (worker.batch_bytes, worker.max_attempts, read.adopt_index) == (1_000_000, 5, "products")


def test_everything_can_come_from_the_environment(load, tmp_path):
    (tmp_path / "pw").write_text("from-a-file\n")
    environ = {
        **SERVERS,
        "IDXCTL_DATABASE_SCHEMA": "search",
        "IDXCTL_OPENSEARCH_URL": "http://a:9200, http://b:9200",
        "IDXCTL_OPENSEARCH_USERNAME": "u",
        "IDXCTL_OPENSEARCH_PASSWORD_FILE": "pw",
        "IDXCTL_OPENSEARCH_VERIFY": "False",
        "IDXCTL_OPENSEARCH_REQUEST_TIMEOUT": "5s",
    }
    read = load(environ=environ)
    assert read.opensearch.urls == ("http://a:9200", "http://b:9200")
    assert read.opensearch.password == Secret("from-a-file")
    assert read.opensearch.verify is False
    assert read.opensearch.request_timeout_seconds == 5
    assert read.database.schema == "search"


def test_an_index_with_all_it_can_have(load, tmp_path):
    text = """
[indexes.places]
document = "search/places.sql"
mapping = "search/places.json"
key = ["tenant", "seq"]
routing = "split_part(document_id, ':', 1)"
pipeline = "vectors"
verify_ignore = ["embedding"]

[[indexes.places.watch]]
table = 'geo."Place Notes"'
key = ["tenant_id", "place"]
ignore = ["views"]
priority = "high"
at = "expires_at"

[[indexes.places.watch]]
table = "regions"
keys = "SELECT tenant, seq FROM places JOIN changed USING (region)"
deferred = true

[[indexes.places.watch]]
table = "notes"
key_sql = "tenant || ':' || seq"
"""
    files = {
        "search/places.sql": "\ufeffSELECT 1;\n",
        "search/places.json": '{"settings": {}, "mappings": {"dynamic": "strict"}}',
    }
    index = load(text, files=files).indexes["places"]
    assert index.document == "SELECT 1"
    assert index.document_path == Path("search/places.sql")
    assert index.mapping["mappings"] == {"dynamic": "strict"}
    assert index.key == ("tenant", "seq")
    assert (index.routing, index.pipeline, index.verify_ignore) == (
        "split_part(document_id, ':', 1)",
        "vectors",
        ("embedding",),
    )
    assert index.watches == (
        WatchSettings(
            table='geo."Place Notes"',
            key=("tenant_id", "place"),
            ignore=("views",),
            priority="high",
            at="expires_at",
            position=0,
            line=10,
        ),
        WatchSettings(
            table="regions",
            keys="SELECT tenant, seq FROM places JOIN changed USING (region)",
            deferred=True,
            position=1,
            line=17,
        ),
        WatchSettings(table="notes", key_sql="tenant || ':' || seq", position=2, line=22),
    )


def test_sql_and_mapping_can_stand_in_the_file(load):
    text = INDEX + 'mapping = { mappings = { properties = { title = { type = "text" } } } }\n'
    index = load(text).indexes["products"]
    assert index.document.startswith("SELECT id")
    assert index.document_path is None
    assert index.mapping == {"mappings": {"properties": {"title": {"type": "text"}}}}


def test_paths_in_the_file_start_at_the_file_and_those_of_the_environment_at_the_working_directory(load, tmp_path):
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf/idxctl.toml").write_text('[indexes.x]\ndocument = "x.sql"\n[opensearch]\nca_file = "ca.pem"\n')
    (tmp_path / "conf/x.sql").write_text("SELECT 1")
    (tmp_path / "conf/ca.pem").write_text("")
    (tmp_path / "cert.pem").write_text("")
    read = load(environ={"IDXCTL_CONFIG": "conf/idxctl.toml", "IDXCTL_OPENSEARCH_CLIENT_CERT": "cert.pem"})
    assert read.path == Path("conf/idxctl.toml")
    assert read.indexes["x"].document_path == Path("conf/x.sql")
    assert read.opensearch.ca_file == Path("conf/ca.pem")
    assert read.opensearch.client_cert == Path("cert.pem")


def test_a_preset_gives_figures_and_what_is_named_beside_it_wins(load):
    read = load('[worker]\npreset = "high"\nworkers = 3\n')
    assert (read.worker.workers, read.worker.queue_size) == (3, 5_000)
    assert read.sources["worker.queue_size"] == "preset high, idxctl.toml line 2"


def test_a_preset_of_the_command_line_beats_figures_of_the_file(load):
    read = load("[worker]\nworkers = 3\nqueue_size = 7\n", flags={"worker.preset": "low", "worker.queue_size": 8})
    assert (read.worker.workers, read.worker.queue_size) == (2, 8)


def test_the_default_file_may_be_missing_if_a_server_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    read = load_settings(environ=SERVERS)
    assert (read.indexes, read.path) == ({}, None)
    assert load_settings(environ={"PGHOST": "db1"}).database.url is None
    assert load_settings(environ={}, need_indexes=False).indexes == {}


def test_windows_line_ends_and_a_byte_order_mark_are_read(load):
    assert load(b"\xef\xbb\xbf[worker]\r\nworkers = 2\r\n").worker.workers == 2


# --- secrets -----------------------------------------------------------------------------------------------------------


def test_the_user_in_a_url_is_moved_out_of_it(load):
    url = f"https://se%40rch:{SECRET}%2F@os1,https://se%40rch:{SECRET}%2F@os2:9201/prefix/"
    read = load(environ={"IDXCTL_OPENSEARCH_URL": url})
    assert read.opensearch.urls == ("https://os1", "https://os2:9201/prefix")
    assert read.opensearch.username == "se@rch"
    assert read.opensearch.password == Secret(f"{SECRET}/")
    assert read.sources["opensearch.password"] == "IDXCTL_OPENSEARCH_URL"


def test_a_url_of_the_environment_brings_its_own_user(load):
    text = '[opensearch]\nusername = "a"\npassword = "b"\n'
    read = load(text, environ={"IDXCTL_OPENSEARCH_URL": "https://c:d@os1"})
    assert (read.opensearch.username, read.opensearch.password) == ("c", Secret("d"))
    read = load(text, environ={"IDXCTL_OPENSEARCH_URL": "https://os1"})
    assert (read.opensearch.username, read.opensearch.password) == ("a", Secret("b"))


def test_a_secret_comes_from_a_file_or_a_command(load):
    command = f'[opensearch]\nbearer_token_command = ["{sys.executable}", "-c", "print(7 * 6)"]\n[database]\nurl_file = "dsn"\n'
    read = load(command, files={"dsn": "dbname=shop\n"})
    assert read.opensearch.bearer_token == Secret("42")
    assert read.database.url == Secret("dbname=shop")


def test_a_stronger_source_of_a_secret_silences_a_weaker_one(load):
    read = load(
        '[opensearch]\nusername = "u"\npassword_command = "false"\n', environ={"IDXCTL_OPENSEARCH_PASSWORD": "x"}
    )
    assert read.opensearch.password == Secret("x")


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ('password_file = "none"', "password: cannot read the secret in none: no such file or directory"),
        ('password_file = "empty"', "password: the secret in empty is empty"),
        (
            'password_command = "no-such-program --x"',
            "password: cannot run the command 'no-such-program': no such file or directory",
        ),
        ('password_command = "false"', "password: the command 'false' ended with status 1; run it by hand to see why"),
        ('password_command = "true"', "password: the command 'true' printed nothing"),
        ('password_command = "echo \'x"', "password_command: has a quote that is not closed"),
        ('password = "a"\npassword_file = "empty"', "is given in two ways"),
    ],
)
def test_a_secret_that_cannot_be_had_says_why(problems, line, wanted):
    found = problems(f'[opensearch]\nusername = "u"\n{line}\n', files={"empty": "\n"})
    assert len(found) == 1
    assert wanted in found[0]


def test_nothing_shown_holds_a_secret(load):
    text = f'[database]\nurl = "postgresql://u:{SECRET}@h/d"\n[opensearch]\nurl = "https://u:{SECRET}@h"\n'
    read = load(text)
    assert SECRET not in f"{read!r} {read} {listing(read)}"
    assert ("database.url", "***", "idxctl.toml line 2") in listing(read)
    assert ("opensearch.password", "***", "idxctl.toml line 4") in listing(read)


@pytest.mark.parametrize(
    "text",
    [
        f'[opensearch]\npassword = "{SECRET}',
        f"[opensearch]\npassword = {SECRET}\n",
        f'[opensearch]\npassword = "{SECRET}"\npassword = "{SECRET}"\n',
        f'[opensearch]\npasword = "{SECRET}"\n',
        f'[opensearch]\npassword = ["{SECRET}"]\n',
        f'[opensearch]\npassword = "{SECRET}"\n',
        f'[opensearch]\nurl = "https://u:{SECRET}@h:port"\n',
        f'[opensearch]\nurl = "ftp://u:{SECRET}@h"\n',
        f'[opensearch]\nurl = "u:{SECRET}@h:9200"\n',
        f'[opensearch]\nurl = "https://u:{SECRET}@[h"\n',
        f'[opensearch]\nurl = ["https://h", "{SECRET}"]\n',
        f'[opensearch]\nurl = "https://u:{SECRET}@h,https://v:{SECRET}@h"\n',
        f'[opensearch]\nurl = "https://h?token={SECRET}"\n',
        f'[opensearch]\napi_key = "{SECRET}"\nbearer_token = "{SECRET}"\n',
        f'[database]\nurl = {{ password = "{SECRET}" }}\n',
        f'"https://u:{SECRET}@h" = ',
    ],
)
def test_no_problem_quotes_a_secret(problems, text):
    assert problems(text)


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        (f"postgresql://u:ab/{SECRET}@h:5432/d", "%2F"),
        (f"postgresql://u:12/{SECRET}@h:5432/d", "%2F"),
        (f"postgresql://u:ab@{SECRET}@h/d", "%40"),
        (f"postgres://u:{SECRET}%x@h/d", "%25"),
        (f"postgresql+driver://u:{SECRET}@h/d", "not a PostgreSQL URL"),
        (f"mysql://u:{SECRET}@h/d", "not a PostgreSQL URL"),
        (SECRET, "neither"),
    ],
)
def test_a_database_url_that_libpq_would_cut_in_the_wrong_place_is_refused(problems, url, wanted):
    found = problems(environ={"IDXCTL_DATABASE_URL": url})
    assert len(found) == 1
    assert found[0].startswith("IDXCTL_DATABASE_URL: ")
    assert wanted in found[0]
    assert problems(f'[database]\nurl = "{url}"\n')[0].startswith("idxctl.toml line 2: [database]: url: ")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:a%2Fb%40c%25@h:5432/d?sslmode=require",
        "postgresql://h/d",
        "postgresql:///d?host=/run/postgresql&user=a%40b",
        "postgresql://u@[::1]:5432/d",
        "postgresql://u@h1:1,h2:2/d",
        "host=h dbname=d password='a://b/c@d%e'",
        "service=shop",
    ],
)
def test_every_way_to_name_a_database_is_taken(load, url):
    assert load(environ={"IDXCTL_DATABASE_URL": url}).database.url == Secret(url)


def test_an_opensearch_url_with_a_bare_slash_in_its_password_is_refused(problems):
    found = problems(environ={"IDXCTL_OPENSEARCH_URL": f"https://u:12/{SECRET}@h:9200"})
    assert len(found) == 1
    assert "%2F" in found[0]


# --- what is wrong -----------------------------------------------------------------------------------------------------


def test_all_problems_are_reported_together_in_the_order_of_the_file(problems):
    text = '[worker]\nworkers = "x"\n\n[opensearch]\nverfy = true\n\n[[indexes.a.watch]]\ntable = "t"\nkeyy = "id"\n'
    found = problems(text, environ={"IDXCTL_WORKER_LEASE": "30"}, flags={"worker.queue_size": 0})
    assert found == [
        "--queue-size: must be at least 1, found 0",
        "IDXCTL_WORKER_LEASE: '30' has no unit; write 30s, 30m, 30h or 30d",
        "idxctl.toml line 2: [worker]: workers: must be a whole number, found a string",
        "idxctl.toml line 5: [opensearch]: unknown key 'verfy'; did you mean 'verify'?",
        'idxctl.toml line 7: indexes.a: no document; name a file with a query that returns document_id and document: document = "products.sql"',
        "idxctl.toml line 9: indexes.a.watch 1: unknown key 'keyy'; did you mean 'key'?",
    ]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (INDEX.replace("[", "[[").replace("]", "]]"), "line 1: indexes.products: must be a table, found a list"),
        ("[wrker]\n", "line 1: unknown section 'wrker'; did you mean 'worker'?"),
        ("worker = 3\n", "worker must be a table, found a number; write [worker]"),
        ("[worker]\nzzz = 3\n", "unknown key 'zzz'; known are workers, queue_size"),
        ("[worker]\nlease = 30\n", 'lease: 30 has no unit; write "30s" for seconds'),
        ("[worker]\nlease = true\n", 'lease: must be a duration such as "30s", found true or false'),
        ('[worker]\nlease = "0s"\n', "must be longer than nothing"),
        ("[worker]\nworkers = true\n", "must be a whole number, found true or false"),
        ("[worker]\nworkers = 1.5\n", "must be a whole number"),
        ('[worker]\npreset = "hihg"\n', "'hihg' is not one of low, medium, high, burst; did you mean 'high'?"),
        (
            '[opensearch]\nverify = "false"\n',
            "verify: must be true or false, found a string; write true or false without quotes",
        ),
        ("[opensearch]\nverify = 0\n", "verify: must be true or false, found a number"),
        ('[opensearch]\nurl = "localhost:9200"\n', "url: is not an http or https URL; write https://host:9200"),
        ('[opensearch]\nurl = ["http://a", "b"]\n', "url: entry 2 is not an http or https URL"),
        ('[opensearch]\nurl = ""\n', "url: is not an http or https URL"),
        ("[opensearch]\nurl = []\n", "url: names no URL"),
        ('[opensearch]\nusername = "u"\n', "a username without a password; set IDXCTL_OPENSEARCH_PASSWORD"),
        ('[opensearch]\npassword = "p"\n', "a password without a username"),
        ('[opensearch]\nurl = "http://a:b@h"\nusername = "a"\n', "username is given in the URL too"),
        (
            '[opensearch]\nusername = "u"\npassword = "p"\napi_key = "k"\n',
            "2 ways to authenticate to OpenSearch: username and password, api_key",
        ),
        ('[opensearch]\nbearer_token = "b"\naws_region = "r"\n', "2 ways to authenticate"),
        ('[opensearch]\naws_service = "es"\n', "aws_service without aws_region"),
        ('[opensearch]\naws_region = "r"\naws_service = "s3"\n', "'s3' is not one of es, aoss"),
        ('[opensearch]\nclient_key = "idxctl.toml"\n', "client_key without client_cert"),
        ('[opensearch]\nca_file = "none.pem"\n', "ca_file: cannot read none.pem: no such file or directory"),
        ('[opensearch]\nca_file = "."\n', "ca_file: cannot read .: is a directory"),
        ("indexes = 3\n", "indexes must be tables"),
        ("[indexes]\nx = 3\n", "line 2: indexes.x: must be a table, found a number; write [indexes.x]"),
        (
            '[indexes.Big]\ndocument = "SELECT 1"\n',
            "indexes.Big: OpenSearch cannot name an index so: it must be lower case",
        ),
        ("[indexes.x]\n", "indexes.x: no document"),
        ('[indexes.x]\ndocument = ""\n', "document: is empty"),
        ("[indexes.x]\ndocument = 3\n", "document: must be a string, found a number"),
        (
            '[indexes.x]\ndocument = "none.sql"\n',
            "document: cannot read none.sql: no such file or directory; paths start at the directory",
        ),
        ('[indexes.x]\ndocument = "comment.sql"\n', "document: comment.sql holds no query"),
        ('[indexes.x]\ndocument = "latin.sql"\n', "document: cannot read latin.sql: it is not UTF-8 text"),
        (INDEX + 'mapping = "broken.json"\n', "mapping: broken.json line 2 column 2: expecting property name"),
        (INDEX + 'mapping = "twice.json"\n', "the key 'a' stands twice in one object"),
        (INDEX + 'mapping = "nan.json"\n', "NaN is not JSON"),
        (INDEX + 'mapping = "list.json"\n', "must be a JSON object with settings and mappings, found a list"),
        (INDEX + 'mapping = "deep.json"\n', "is nested too deeply"),
        (INDEX + "mapping = { aliases = {} }\n", "mapping: aliases are idxctl's to set"),
        (INDEX + "mapping = { properties = {} }\n", "mapping: 'properties' at the top; put it inside \"mappings\""),
        (INDEX + "mapping = { mapings = {} }\n", "mapping: unknown key 'mapings'; did you mean 'mappings'?"),
        (INDEX + "mapping = { settings = 3 }\n", "mapping: settings must be an object, found a number"),
        (INDEX + "mapping = { settings = { a = 2026-01-01 } }\n", "mapping: holds a date"),
        (INDEX + "key = []\n", "key: is an empty list; name at least one column"),
        (INDEX + 'key = ["a", "a"]\n', "key: names a column twice"),
        (INDEX + 'key = ["a", ""]\n', "key: must be a list of non-empty strings"),
        (INDEX + 'verify_ignore = "a"\n', "verify_ignore: must be a list of strings, found a string"),
        (
            INDEX + '[indexes.products.watch]\ntable = "t"\nkey = "id"\n',
            "watch must be a list of tables; write [[indexes.products.watch]]",
        ),
        (INDEX + '[indexes.products-000001]\ndocument = "SELECT 1"\n', "is the name of a generation of products"),
    ],
)
def test_a_mistake_is_named_with_its_way_out(problems, text, wanted):
    files = {
        "comment.sql": "-- SELECT\n/* later;\n */\n;",
        "latin.sql": b"SELECT '\xe9'",
        "broken.json": '{"a": 1,\n }',
        "twice.json": '{"settings": {"a": 1, "a": 2}}',
        "nan.json": '{"settings": {"a": NaN}}',
        "list.json": "[]",
        "deep.json": "[" * 100_000,
    }
    found = problems(text, files=files)
    assert len(found) == 1
    assert wanted in found[0]


WATCH = INDEX + "[[indexes.products.watch]]\n"


@pytest.mark.parametrize(
    ("lines", "wanted"),
    [
        ('key = "id"', "no table; name the table"),
        ('table = "t"', "none of key, key_sql and keys"),
        ('table = "t"\nkey = "id"\nkeys = "SELECT 1"', "key and keys together; keep one of them"),
        ('table = "t"\nkey = "id"\nkey_sql = "id"', "key and key_sql together"),
        ('table = "t"\nkey = "id"\ndeferred = true', "deferred without keys"),
        ('table = "t"\nkeys = "SELECT 1"\nat = "x"', "at together with keys"),
        ('table = "t"\nkey = "id"\nignore = "x"', "ignore: must be a list of strings, found a string"),
        ('table = "t"\nkey = "id"\nignore = ["id"]', "ignore names the key id"),
        ('table = "t"\nkey = "id"\npriority = "urgent"', "priority: 'urgent' is not one of high, normal, low"),
        ('table = "t"\nkey = "id"\ndeferred = "yes"', "deferred: must be true or false, found a string"),
        (
            'table = "t"\nkey = ["a", "b"]',
            'key names 2 columns, but the index has no key of its own; set key = ["a", "b"] on the index too',
        ),
        ('tabel = "t"\nkey = "id"', "unknown key 'tabel'; did you mean 'table'?"),
        ('table = ""\nkey = "id"', "table: is empty"),
    ],
)
def test_a_watch_that_cannot_be_meant_is_refused(problems, lines, wanted):
    found = problems(WATCH + lines + "\n")
    assert len(found) == 1
    assert found[0].startswith("idxctl.toml line ")
    assert "indexes.products.watch 1: " in found[0]
    assert wanted in found[0]


def test_a_watch_has_as_many_key_columns_as_its_index(problems, load):
    text = INDEX + 'key = ["tenant", "seq"]\n[[indexes.products.watch]]\ntable = "t"\n'
    assert load(text + 'key = ["a", "b"]\n').indexes["products"].watches[0].key == ("a", "b")
    (found,) = problems(text + 'key = "a"\n')
    assert "key names 1, the key of the index has 2 (tenant, seq)" in found


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("[worker\nx = 1", "idxctl.toml: not valid TOML: "),
        (b"[worker]\nx = '\xff'", "idxctl.toml line 2: is not UTF-8 text"),
    ],
)
def test_a_file_that_is_not_toml_says_where(problems, text, wanted):
    (found,) = problems(text)
    assert found.startswith(wanted)


def test_a_file_that_was_named_must_be_there(problems, tmp_path):
    assert problems(environ={"IDXCTL_CONFIG": "none.toml", **SERVERS}) == ["IDXCTL_CONFIG: there is no file none.toml"]
    assert problems(path=Path("none.toml")) == ["--config: there is no file none.toml"]
    assert problems(path=tmp_path) == [f"--config: cannot read {tmp_path}: is a directory"]


def test_without_file_and_servers_the_ways_to_name_them_are_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidConfig) as caught:
        load_settings(environ={})
    assert str(caught.value) == "there is no idxctl.toml in this directory"
    assert "IDXCTL_CONFIG" in caught.value.hint


def test_a_mistyped_variable_is_noticed_and_a_strangers_is_not(load, problems):
    assert load(environ={"IDXCTL_OPENSEARCH_VERSION": "3", "IDXCTL_HTTP_TOKEN": "x", "IDXCTL_WORKER_POD": "y"})
    found = problems(environ={"IDXCTL_OPENSEARCH_PASSWROD": SECRET})
    assert found == ["IDXCTL_OPENSEARCH_PASSWROD: unknown variable; did you mean IDXCTL_OPENSEARCH_PASSWORD?"]
    found = problems(environ={"IDXCTL_DATABSE_URL": SECRET})
    assert found == ["IDXCTL_DATABSE_URL: unknown variable; did you mean IDXCTL_DATABASE_URL?"]


# --- names and lines ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["products", "a", "shop.products", "p-1_x", "žuto", "p" * 240])
def test_names_that_opensearch_takes(name):
    assert index_name_problem(name) is None


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "-a",
        "_a",
        "+a",
        ".a",
        "A",
        "a b",
        "a/b",
        "a\\b",
        "a*",
        "a?",
        'a"',
        "a<",
        "a|",
        "a,b",
        "a#b",
        "a:b",
        "p" * 241,
    ],
)
def test_names_that_opensearch_refuses(name):
    assert index_name_problem(name)


def test_lines_are_found_past_strings_comments_and_arrays():
    text = '''# a comment = 1
[database] # [not.a.table]
url = """
[indexes.fake]
key = 1
"""
list = [
  "a = 1",
]
dotted.key = 1
[indexes."a.b"]
[[indexes.'x'.watch]]
table = "one"
[[indexes.x.watch]]
"table" = "two"
'''
    lines = line_numbers(text)
    assert lines[("database",)] == 2
    assert lines[("database", "url")] == 3
    assert lines[("database", "dotted", "key")] == 10
    assert lines[("indexes", "a.b")] == 11
    assert lines[("indexes", "x", "watch", 0, "table")] == 13
    assert lines[("indexes", "x", "watch", 1)] == 14
    assert lines[("indexes", "x", "watch", 1, "table")] == 15
    assert not any("fake" in path for path in lines)


@settings(max_examples=300)
@given(st.text(alphabet="[]\"'=.#ab \n{},1", max_size=80))
def test_no_text_breaks_the_search_for_lines(text):
    line_numbers(text)


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["document", "mapping", "key", "watch", "routing", "x"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(alphabet="ab .", max_size=4),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.sampled_from(["table", "key", "keys", "at", "ignore"]), inner, max_size=4)
            ),
            max_leaves=8,
        ),
    )
)
def test_no_shape_of_an_index_is_more_than_a_list_of_problems(table):
    file, findings = ConfigFile(), Findings()
    indexes = Indexes(file=file, files=Files(trust.Trust(), file, findings), findings=findings)
    indexes.index("x", {key: value for key, value in table.items() if value is not None})


@pytest.mark.parametrize("key", ["document", "mapping"])
def test_a_file_of_an_account_that_is_not_there_is_a_problem_and_no_crash(tmp_path, key):
    values = {"document": "p.sql", "mapping": "p.json"} | {key: f"~nobody-of-that-name/{key}.sql"}
    (tmp_path / "p.sql").write_text("SELECT 1 AS document_id, '{}'::json AS document")
    (tmp_path / "p.json").write_text("{}")
    named = "\n".join(f'{name} = "{value}"' for name, value in values.items())
    file = tmp_path / "idxctl.toml"
    file.write_text(f'[indexes.p]\n{named}\n[[indexes.p.watch]]\ntable = "p"\nkey = "id"\n')
    with pytest.raises(InvalidConfig, match=f"{key}: cannot read .*~nobody-of-that-name"):
        load_settings(environ={}, path=file)
