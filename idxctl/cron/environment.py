"""
What configures idxctl in the environment, and which of it may stand in a crontab.

The entry carries no secret. Cron starts it with almost no environment, so what configures idxctl now and may stand in
a crontab is written into the line, and what may not is reported by name. Variables are set for the one command and
not as lines of the tab, where they would reach every entry below ours.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote

from idxctl.core.errors import ConfigError

# libpq's variables that are no secret. PGPASSWORD and PGOPTIONS (any setting, a secret among them) are not here.
_PLAIN_PG = frozenset(
    "PGAPPNAME PGCHANNELBINDING PGCLIENTENCODING PGCONNECT_TIMEOUT PGDATABASE PGGSSDELEGATION PGGSSENCMODE PGGSSLIB "  # noqa: SIM905
    "PGHOST PGHOSTADDR PGKRBSRVNAME PGLOADBALANCEHOSTS PGMAXPROTOCOLVERSION PGMINPROTOCOLVERSION PGPASSFILE PGPORT "
    "PGREQUIREAUTH PGREQUIREPEER PGSERVICE PGSERVICEFILE PGSSLCERT PGSSLCERTMODE PGSSLCRL PGSSLCRLDIR PGSSLKEY "
    "PGSSLMAXPROTOCOLVERSION PGSSLMINPROTOCOLVERSION PGSSLMODE PGSSLNEGOTIATION PGSSLROOTCERT PGSSLSNI "
    "PGTARGETSESSIONATTRS PGTZ PGUSER".split()
)
# botocore's, of use only where the configuration signs for AWS.
_PLAIN_AWS = frozenset({"AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ROLE_ARN", "AWS_CONFIG_FILE"}) | {
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
}
_WITHHELD_PG = frozenset({"PGPASSWORD", "PGOPTIONS"})
_WITHHELD_AWS = frozenset({"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"})
_PATH_NAME = re.compile(
    r"IDXCTL_\w+_(FILE|CLIENT_CERT|CLIENT_KEY)|PG(PASSFILE|SERVICEFILE|SSL\w*(CERT|CRL|CRLDIR|KEY))|AWS_\w+_FILE"
)
_SECRET_NAME = re.compile(r"(PASSWORD|PASSWD|PASSPHRASE|SECRET|TOKEN|API_?KEY|CREDENTIAL|DSN)", re.IGNORECASE)
_SECRET_SETTING = re.compile(r"(password|passwd|pwd|secret|token|api_?key)\s*=", re.IGNORECASE)


def _holds_secret(value: str) -> bool:
    """Say whether a URL, a list of URLs or a conninfo holds a password. In doubt it does."""
    if _SECRET_SETTING.search(value) or _SECRET_SETTING.search(unquote(value)):
        return True
    for url in re.split(r",(?=[a-z]+://)", value):
        _, scheme, rest = url.partition("://")
        user_info, at, _ = rest.rpartition("@")
        if scheme and at and ":" in user_info:
            return True
    return False


def split_environment(env: Mapping[str, str], config: str = "") -> tuple[dict[str, str], tuple[str, ...]]:
    """
    Sort what configures idxctl in *env*: the settings that may stand in a crontab, and the names of those that may not.

    *config* is the text of the configuration file: one that runs a command for a secret needs ``PATH``, and one that
    signs for AWS needs botocore's variables. ``IDXCTL_CONFIG`` is in neither result: the entry names the file by
    ``--config``. Relative paths become absolute.
    """
    plain, secret = _PLAIN_PG, _WITHHELD_PG
    if "aws_region" in config or env.get("IDXCTL_OPENSEARCH_AWS_REGION"):
        plain, secret = plain | _PLAIN_AWS, secret | _WITHHELD_AWS
    if re.search(r"_command\s*=", config):
        plain |= {"PATH"}
    written: dict[str, str] = {}
    withheld: list[str] = []
    for name, value in sorted(env.items()):
        ours = name.startswith("IDXCTL_") and name != "IDXCTL_CONFIG"
        if not value or not (ours or name in plain or name in secret):
            continue
        is_path = _PATH_NAME.fullmatch(name) is not None and value != "system"  # a word of PGSSLROOTCERT
        hidden = name in secret or (ours and not is_path and bool(_SECRET_NAME.search(name)))
        if hidden or _holds_secret(value) or not value.isprintable():
            withheld.append(name)
        else:
            written[name] = str(absolute(Path(value))) if is_path else value
    return written, tuple(withheld)


def absolute(path: Path) -> Path:
    """Return *path* from the root on, its links unresolved."""
    return Path(os.path.abspath(path.expanduser()))  # noqa: PTH100 - keeps symbolic links


def names_in(env_file: Path, *, required: bool) -> frozenset[str]:
    """Return the names that a file of ``NAME=value`` lines sets; the values are not looked at."""
    try:
        text = env_file.read_text(errors="replace")
    except OSError as err:
        if not required:
            return frozenset()
        raise ConfigError(
            f"--env-file {env_file}: {err.strerror}", hint="a file of NAME=value lines that sh can read, mode 600"
        ) from err
    return frozenset(re.findall(r"^[ \t]*(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_]*)=", text, re.MULTILINE))
