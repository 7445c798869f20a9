"""``ENABLE_ASYNC_INDEXING``: whether an application's processes index what they enqueue."""

from __future__ import annotations

from collections.abc import Mapping

from idxctl.core.errors import ConfigError

NAME = "ENABLE_ASYNC_INDEXING"
_ON, _OFF = frozenset({"true", "1", "yes", "on"}), frozenset({"false", "0", "no", "off", ""})


def is_on(environ: Mapping[str, str]) -> bool:
    """Tell whether it is switched on. Raises `ConfigError` for a word that is neither."""
    value = environ.get(NAME, "")
    word = value.strip().lower()
    if word in _ON:
        return True
    if word in _OFF:
        return False
    raise ConfigError(f"{NAME} is {value!r}, wanted true or false", hint=f"{NAME}=true")
