"""Fixtures that these tests share."""

from support.loaded import load  # noqa: F401 - pytest finds it by name here
