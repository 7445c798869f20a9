"""The table of keys: what it says of each is so, and nothing is left out of it."""

import json
import re
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import jsonschema
import pytest

from idxctl.config import settings
from idxctl.config.index_keys import INDEX, WATCH
from idxctl.config.keys import SECTIONS, VARIABLES
from idxctl.config.load import load
from idxctl.config.schema import in_toml, schema, tomllib
from making import commands

ROOT = Path(__file__).parents[2]
KEYS = {f"{name}.{key}": known for name, keys in SECTIONS.items() for key, known in keys.items()}
ALL = {**KEYS, **{f"index.{key}": known for key, known in INDEX.items()}, **{f"watch.{key}": known for key, known in WATCH.items()}}  # fmt: skip
every_key = pytest.mark.parametrize("name", ALL)


@every_key
def test_a_key_says_what_it_decides_and_its_example_and_default_are_taken(name):
    key = ALL[name]
    assert key.text.endswith(".")
    assert key.value.words
    key.value.read(in_toml(key.example))
    if key.default:
        key.value.read(in_toml(key.default))
        assert key.value.read(in_toml(key.example)) != key.value.read(in_toml(key.default)) or name.endswith((".verify", ".compress", "watch.watch", "index.watch"))  # fmt: skip


def test_a_file_of_all_defaults_changes_nothing(tmp_path):
    lines = []
    for section, keys in SECTIONS.items():
        lines += [
            f"[{section}]",
            *(f"{name} = {key.default}" for name, key in keys.items() if key.default and name != "aws_service"),
        ]
    (tmp_path / "idxctl.toml").write_text("\n".join(lines))
    found = load(environ={}, path=tmp_path / "idxctl.toml")
    assert replace(found, path=None, sources={}) == settings.Settings()
    assert (
        in_toml(KEYS["opensearch.aws_service"].default) == settings.Settings().opensearch.aws_service
    )  # needs a region


@pytest.mark.parametrize(
    ("of", "keys", "apart"),
    [
        (settings.DatabaseSettings, SECTIONS["database"], {"keep_values", "keep_data"}),  # [log] values, [dlq] store
        (settings.OpenSearchSettings, SECTIONS["opensearch"], set()),
        (settings.WorkerSettings, SECTIONS["worker"], set()),
        (settings.HttpSettings, SECTIONS["http"], {"bearers", "remarks"}),
        (settings.IndexSettings, INDEX, {"name", "document_path"}),
        (settings.WatchSettings, WATCH, {"position", "line"}),
    ],
)
def test_every_setting_has_its_key(of, keys, apart):
    names = {"urls": "url", "pinned": "settings", "watches": "watch"}
    assert {names.get(one.name, one.name.removesuffix("_seconds")) for one in fields(of)} - apart <= set(keys)


def test_every_flag_that_a_key_names_exists():
    known = {one.words: one.flags for one in commands.commands()}
    for key in ALL.values():
        if key.flag:
            *words, flag = key.flag.split()
            assert flag in known[tuple(words)]


def test_every_variable_in_the_code_is_documented():
    named = set()
    for path in (ROOT / "idxctl").rglob("*.py"):
        named |= set(re.findall(r"\b(?:IDXCTL_[A-Z_]*[A-Z]|ENABLE_ASYNC_INDEXING|NO_COLOR)\b", path.read_text()))
    ours = {"IDXCTL_CHANNEL", "IDXCTL_COMPLETE"}  # how our own processes tell one another
    assert named - ours <= {*VARIABLES, *(f"IDXCTL_{name.replace('.', '_')}".upper() for name in KEYS)}


# --- the schema --------------------------------------------------------------------------------------------------------


def wrong_in(text):
    found = jsonschema.Draft7Validator(schema()).iter_errors(tomllib.loads(text))
    return [".".join(str(part) for part in one.absolute_path) for one in found]


def test_the_schema_is_one_and_takes_every_example_and_default():
    jsonschema.Draft7Validator.check_schema(schema())
    for section, keys in SECTIONS.items():
        for name, key in keys.items():
            assert wrong_in(f"[{section}]\n{name} = {key.example}\n") == []
            assert not key.default or wrong_in(f"[{section}]\n{name} = {key.default}\n") == []
    index = [f"{name} = {key.example}" for name, key in INDEX.items() if name != "watch"]
    watch = [f"{name} = {key.example}" for name, key in WATCH.items()]
    assert wrong_in("\n".join(["[indexes.a]", *index, "[[indexes.a.watch]]", *watch])) == []


@pytest.mark.parametrize("path", ["README.md", "idxctl/demo/shop/idxctl.toml"])
def test_the_schema_takes_configurations_that_work(path):
    text = (ROOT / path).read_text()
    found = re.search(r"^```toml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert wrong_in(found[1] if found else text) == []


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("[workers]\nworkers = 5", ""),
        ("[worker]\nworker = 5", "worker"),
        ("[worker]\nworkers = 0", "worker.workers"),
        ("[worker]\nlease = 30", "worker.lease"),
        ("[worker]\nlease = '30 parsecs'", "worker.lease"),
        ("[opensearch]\nverify = 'no'", "opensearch.verify"),
        ("[indexes.a]\nmapping = 'a.json'", "indexes.a"),
        ("[indexes.a]\ndocument = 'a.sql'\n[[indexes.a.watch]]\nkey = 'id'", "indexes.a.watch.0"),
        (
            "[indexes.a]\ndocument = 'a.sql'\n[[indexes.a.watch]]\ntable = 't'\npriority = 'now'",
            "indexes.a.watch.0.priority",
        ),
    ],
)
def test_the_schema_refuses_what_the_reader_refuses(text, place, tmp_path):
    assert wrong_in(text) == [place]
    from idxctl.config.problems import InvalidConfig

    (tmp_path / "idxctl.toml").write_text(text)
    with pytest.raises(InvalidConfig):
        load(environ={}, path=tmp_path / "idxctl.toml")


def test_config_schema_prints_it():
    done = subprocess.run(
        [sys.executable, "-m", "idxctl", "config", "schema"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == schema()
