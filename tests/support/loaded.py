"""Settings as a file and an environment say them, and what is wrong with either."""

from __future__ import annotations

import pytest

from idxctl.config.load import load as load_settings
from idxctl.config.problems import InvalidConfig

SERVERS = {"IDXCTL_DATABASE_URL": "postgresql://app@db1/shop"}


@pytest.fixture
def load(tmp_path):
    def load(text="", **environ):
        path = tmp_path / "idxctl.toml"
        path.write_text(text)
        return load_settings(environ={**SERVERS, **environ}, path=path)

    return load


def problems(load, *arguments, **environ):
    with pytest.raises(InvalidConfig) as caught:
        load(*arguments, **environ)
    return [str(one) for one in caught.value.problems]
