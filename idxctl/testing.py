"""
For an application's own tests: `prepare`, `drain`, and fixtures of pytest for real servers.

In conftest.py: ``pytest_plugins = ["idxctl.testing"]``.
"""

import contextlib

from idxctl.library.testing import drain, prepare

__all__ = ["drain", "prepare"]

with contextlib.suppress(ModuleNotFoundError):  # other test runners use the functions
    from idxctl.library.fixtures import idxctl_database_url, idxctl_opensearch_url

    __all__ += ["idxctl_database_url", "idxctl_opensearch_url"]
