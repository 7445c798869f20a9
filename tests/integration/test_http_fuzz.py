"""The API asked at random, from its own description (schemathesis): no answer is a 5xx, none is not as described."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from openapi_spec_validator import validate

from idxctl.web.description import description
from support.calls import OPERATOR, served

pytestmark = pytest.mark.full

# What is left out: a cursor that is text and no cursor, or a parameter in query and body, is refused though the schema allows it.
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,"
    "negative_data_rejection,unsupported_method,ignored_auth"
)


def test_the_description_is_valid():
    validate(description())


@pytest.mark.parametrize("token", [OPERATOR, None], ids=["operator", "nobody"])
def test_no_request_breaks_it(items, tmp_path, token):
    items.sql(
        "INSERT INTO opensearch_indexing_dlq (index_name, document_id, action, attempts, last_error) "
        "SELECT %s, n::text, 'index', 1, 'boom' FROM generate_series(1, 30) n",
        items.index,
    )
    with served(items.settings, rate_limit=1_000_000) as api:
        told = tmp_path / "openapi.json"  # who has no token is not told it over HTTP
        told.write_text(json.dumps(description()))
        program = [sys.executable, "-m", "schemathesis.cli", "run", str(told), "--url", f"http://{api.address}"]
        options = ["--checks", CHECKS, "--max-examples", "5", "--seed", "1", "--no-color", "--continue-on-failure"]
        header = ["-H", f"Authorization: Bearer {token}"] if token else ["--include-method", "POST"]
        done = subprocess.run([*program, *options, *header], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{12 if token else 2} selected / 12 total" in done.stdout
    if token is None:
        assert len(items.letters()) == 30
