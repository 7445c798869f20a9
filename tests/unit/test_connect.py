"""Connecting: what names the server is never repeated, not even in a traceback."""

from __future__ import annotations

import traceback

import pytest

from idxctl.config.settings import DatabaseSettings
from idxctl.core.errors import ConfigError
from idxctl.core.secret import Secret
from idxctl.postgres.connect import connect
from idxctl.postgres.opening import describe

SECRET = "hunter2-do-not-show"


@pytest.mark.parametrize(
    "given",
    [f"host=h password=x {SECRET}", f"mysql://u:{SECRET}@h/d", f"postgresql://u:{SECRET}%x@h/d", f"h=1 {SECRET}"],
)
def test_a_connection_string_that_cannot_be_read_is_not_quoted_in_a_traceback(given):
    settings = DatabaseSettings(url=Secret(given))
    with pytest.raises(ConfigError) as caught:
        connect(settings)
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert SECRET not in describe(settings)
    assert caught.value.exit_status == 4
