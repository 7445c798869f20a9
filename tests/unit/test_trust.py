"""Whose word a file is: planted, exchanged, shared and foreign ones."""

from __future__ import annotations

import os
import pwd
import stat
import struct
import subprocess
import sys
from pathlib import Path

import pytest

import idxctl
from idxctl.config import trust
from idxctl.config.load import load
from idxctl.config.problems import InvalidConfig
from idxctl.config.trust import Trust

NOBODY = 65534
SERVERS = {"IDXCTL_DATABASE_URL": "postgresql://app@db1/shop"}
own_group = pytest.mark.skipif(
    not trust._all_known(os.getegid(), frozenset({os.geteuid(), 0})), reason="others are in the group of this user"
)
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives files away")


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "folder"
    made.mkdir(mode=0o755)
    return made


@pytest.fixture
def file(folder):
    made = folder / "idxctl.toml"
    made.write_text("[database]\nschema = 'ours'\n")
    made.chmod(0o644)
    return made


def refusal(path, *trusted):
    return Trust(map(str, trusted)).look(path).refused


# Written by others -----------------------------------------------------------------------------------------------------


def test_a_file_of_ones_own_is_fine(file):
    standing = Trust().look(file)
    assert (standing.refused, standing.foreign, standing.exposed) == ("", "", True)
    assert Trust().read(file)[0] == file.read_bytes()


def test_a_file_that_everybody_can_write_is_refused_with_owner_and_mode(file):
    file.chmod(0o666)
    owner = pwd.getpwuid(os.geteuid()).pw_name
    assert refusal(file) == f"{file} can be written by everybody (owner {owner}, mode 0666)"
    data, standing = Trust().read(file)
    assert (data, standing.fix) == (b"", f"chmod go-w {file}")


@pytest.mark.parametrize("levels", [0, 1, 3])
def test_a_folder_on_the_way_that_everybody_can_write_is_refused(folder, levels):
    deep = folder.joinpath(*"abc"[:levels])
    deep.mkdir(parents=True, exist_ok=True)
    file = deep / "x.sql"
    file.touch()
    assert refusal(file) == ""
    folder.chmod(0o777)
    assert f"can be replaced: its folder {folder} can be written by everybody" in refusal(file)


def test_in_a_shared_folder_with_the_sticky_bit_ones_own_file_is_ones_own(folder, file):
    folder.chmod(0o1777)
    assert refusal(file) == ""


@as_root
def test_in_a_shared_folder_with_the_sticky_bit_a_file_of_somebody_else_is_refused(folder, file):
    folder.chmod(0o1777)
    os.chown(file, NOBODY, NOBODY)
    assert "was put by nobody into" in refusal(file)
    inner = folder / "inner"
    inner.mkdir()
    (inner / "x").touch()
    os.chown(inner, NOBODY, NOBODY)
    assert f"{inner} was put by nobody into {folder}" in refusal(inner / "x")


@own_group
def test_a_group_of_which_the_user_is_the_only_member_counts_as_the_user(file, monkeypatch):
    file.chmod(0o664)
    assert refusal(file) == ""
    trust._all_known.cache_clear()
    monkeypatch.setattr(trust.grp, "getgrgid", lambda gid: trust.grp.struct_group(("staff", "x", gid, ["nobody"])))
    try:
        assert "can be written by group staff" in refusal(file)
    finally:
        trust._all_known.cache_clear()


@as_root
def test_a_group_with_other_members_is_others(folder, file):
    file.chmod(0o664)
    os.chown(file, 0, NOBODY)
    assert "can be written by group" in refusal(file)
    os.chown(file, 0, 0)
    os.chown(folder, 0, NOBODY)
    folder.chmod(0o775)
    assert "can be replaced" in refusal(file)


def acl(*entries):
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *one) for one in sorted(entries))


NONE = 0xFFFFFFFF


@own_group
@pytest.mark.parametrize(("tag", "who"), [(0x02, "nobody"), (0x08, "group nogroup")])
def test_an_access_control_list_is_read(file, tag, who):
    if pwd.getpwuid(NOBODY).pw_gid != NOBODY:
        pytest.skip("another distribution's nobody")
    listed = acl((0x01, 6, NONE), (tag, 6, NOBODY), (0x04, 4, NONE), (0x10, 6, NONE), (0x20, 4, NONE))
    try:
        os.setxattr(file, "system.posix_acl_access", listed)
    except OSError:
        pytest.skip("no access control lists here")
    assert f"can be written by {who} (by its access control list)" in refusal(file)
    masked = acl((0x01, 6, NONE), (tag, 6, NOBODY), (0x04, 4, NONE), (0x10, 4, NONE), (0x20, 4, NONE))
    os.setxattr(file, "system.posix_acl_access", masked)
    assert refusal(file) == ""


# Links -----------------------------------------------------------------------------------------------------------------


def test_a_link_is_no_safer_than_its_own_folder_and_that_of_its_target(tmp_path, file):
    links, shared = tmp_path / "links", tmp_path / "shared"
    links.mkdir()
    shared.mkdir()
    link = links / "idxctl.toml"
    link.symlink_to(file)
    assert refusal(link) == ""
    links.chmod(0o777)
    assert f"its folder {links}" in refusal(link)
    links.chmod(0o755)
    (shared / "there").write_text("")
    shared.chmod(0o777)
    link.unlink()
    link.symlink_to("../shared/there")
    assert f"its folder {shared}" in refusal(link)


def test_a_link_of_a_folder_in_the_middle_is_followed(tmp_path, folder, file):
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "way").symlink_to(folder)
    assert refusal(shared / "way" / file.name) == ""
    assert refusal(shared / "way" / ".." / "folder" / file.name) == ""
    shared.chmod(0o777)
    assert f"its folder {shared}" in refusal(shared / "way" / file.name)
    assert f"its folder {shared}" in refusal(shared / "way" / ".." / "folder" / file.name)


def test_links_in_a_circle_are_an_error_and_no_endless_walk(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="symbolic links"):
        Trust().read(tmp_path / "a")


def test_a_pipe_of_the_shells_own_is_read_and_a_planted_one_blocks_nobody(folder):
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb") as end:
        end.write(b"from a pipe")
    assert Trust().read(Path(f"/dev/fd/{reading}"))[0] == b"from a pipe"
    os.close(reading)
    os.mkfifo(folder / "fifo")
    assert Trust().read(folder / "fifo")[0] == b""


# Somebody else's -------------------------------------------------------------------------------------------------------


@as_root
def test_a_file_or_a_folder_of_somebody_else_is_foreign_and_not_refused(folder, file):
    os.chown(file, NOBODY, NOBODY)
    assert (Trust().look(file).refused, Trust().look(file).foreign) == ("", "nobody")
    os.chown(file, 0, 0)
    os.chown(folder, NOBODY, NOBODY)
    assert (Trust().look(file).refused, Trust().look(file).foreign) == ("", "nobody")


@as_root
def test_to_a_user_roots_files_are_fine_and_those_of_a_third_one_foreign(file, tmp_path):
    assert Trust(uid=NOBODY).look(file).foreign == ""
    os.chown(file, 1, 1)
    assert Trust(uid=NOBODY).look(file).foreign == pwd.getpwuid(1).pw_name


def test_a_folder_that_is_trusted_in_so_many_words_is(folder, file):
    folder.chmod(0o777)
    file.chmod(0o666)
    assert refusal(file)
    assert refusal(file, folder) == ""
    assert refusal(file, folder.parent) == ""
    assert refusal(file, folder / "other")
    assert refusal(file, f"{folder}x")


def test_trust_is_a_list_of_absolute_folders():
    given, wrong = trust.of({trust.VARIABLE: os.pathsep.join(["/srv/a", "", ".", "*", "~/b"])})
    assert wrong == [".", "*"]
    assert {"/srv/a", str(Path("~/b").expanduser())} <= set(given._trusted)


# Every file that decides -----------------------------------------------------------------------------------------------

INDEX = "[indexes.products]\ndocument = 'products.sql'\nmapping = 'products.json'\n"
QUERY = "SELECT 1 AS document_id, '{}'::jsonb AS document"
DECIDING = {
    "idxctl.toml": "",
    "products.sql": "",
    "products.json": "",
    "url": "[database]\nurl_file = 'url'\n",
    "password": "[opensearch]\nusername = 'u'\npassword_file = 'password'\n",
    "bearer": "[opensearch]\nbearer_token_file = 'bearer'\n",
    "key": "[opensearch]\napi_key_file = 'key'\n",
    "token": "[http]\ntoken_file = 'token'\n",
    "tokens": "[http]\ntokens_file = 'tokens'\n",
    "ca.pem": "[opensearch]\nca_file = 'ca.pem'\n",
    "cert.pem": "[opensearch]\nclient_cert = 'cert.pem'\n",
    "key.pem": "[opensearch]\nclient_cert = 'cert.pem'\nclient_key = 'key.pem'\n",
}
SECRETS = ("url", "password", "bearer", "key", "token", "tokens", "key.pem")
CONTENT = {
    "products.sql": QUERY, "products.json": "{}", "url": "postgresql://app@db1/shop",
    "tokens": "alice operator a-token-of-some-length", "token": "a-token-of-some-length",
}  # fmt: skip


@pytest.fixture
def project(folder):
    """A folder with every kind of file that decides."""
    for name in {*DECIDING, "cert.pem"}:
        (folder / name).write_text(CONTENT.get(name, name))
        (folder / name).chmod(0o644 if name.endswith((".sql", ".json")) else 0o600)
    return folder


def remarks_on(settings):
    return (*settings.remarks, *settings.http.remarks)


def loaded(project, name, **environ):
    file = project / "idxctl.toml"
    mode = file.stat().st_mode & 0o777
    file.write_text(DECIDING[name] + INDEX)
    file.chmod(mode)
    given = {} if name == "url" else SERVERS
    return load(environ={**given, **environ}, path=file)


@pytest.mark.parametrize("name", DECIDING)
def test_every_file_that_decides_is_refused_when_others_can_write_it(project, name):
    assert remarks_on(loaded(project, name)) == ()
    (project / name).chmod(0o622)
    with pytest.raises(InvalidConfig) as caught:
        loaded(project, name)
    (problem,) = caught.value.problems
    assert f"{project / name} can be written by everybody (owner" in str(problem)
    assert "mode 0622" in str(problem)
    assert f"chmod go-w {project / name}" in str(problem)
    assert loaded(project, name, IDXCTL_TRUST_DIRECTORY=str(project)).indexes


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_that_others_can_read_is_remarked_on(project, name):
    (project / name).chmod(0o644)
    (remark,) = remarks_on(loaded(project, name))
    assert (remark.kind, remark.path) == ("exposed", project / name)
    assert f"chmod 600 {project / name}" in str(remark)


@as_root
@pytest.mark.parametrize("name", DECIDING)
def test_every_file_of_somebody_else_is_read_with_a_remark(project, name):
    os.chown(project / name, NOBODY, NOBODY)
    (remark,) = remarks_on(loaded(project, name))
    assert (remark.kind, remark.path) == ("foreign", project / name)
    assert "belongs to someone else (nobody)" in str(remark)
    assert remarks_on(loaded(project, name, IDXCTL_TRUST_DIRECTORY=str(project))) == ()


@pytest.mark.parametrize(
    ("text", "exposed"),
    [
        ("[database]\nurl = 'postgresql://app:word@db1/shop'\n", True),
        ("[database]\nurl = 'host=db1 password=word'\n", True),
        ("[database]\nurl = 'postgresql://app@db1/shop'\n", False),
        ("[opensearch]\nurl = 'https://u:word@search1'\n", True),
        ("[opensearch]\nbearer_token = 'word'\n", True),
        ("[opensearch]\nurl = 'https://search1'\n", False),
    ],
)
def test_a_configuration_is_a_secret_where_it_holds_one(file, text, exposed):
    file.write_text(text)
    remarks = load(environ={}, path=file).remarks
    assert [one.kind for one in remarks] == (["exposed"] if exposed else [])
    file.chmod(0o600)
    assert load(environ={}, path=file).remarks == ()


# Commands --------------------------------------------------------------------------------------------------------------

COMMANDS = {
    "url_command": "[database]\nurl_command = {}\n",
    "password_command": "[opensearch]\nusername = 'u'\npassword_command = {}\n",
    "bearer_token_command": "[opensearch]\nbearer_token_command = {}\n",
    "api_key_command": "[opensearch]\napi_key_command = {}\n",
    "token_command": "[http]\ntoken_command = {}\n",
}
RUN = """["sh", "-c", "touch ran; echo postgresql://x@127.0.0.1:1/x"]"""


@as_root
@pytest.mark.parametrize("key", COMMANDS)
def test_a_file_of_somebody_else_runs_no_command(folder, file, key):
    file.write_text(COMMANDS[key].format(RUN))
    given = {} if key == "url_command" else SERVERS
    load(environ={"PATH": os.environ["PATH"], **given}, path=file)
    assert (folder / "ran").exists()
    (folder / "ran").unlink()
    os.chown(file, NOBODY, NOBODY)
    with pytest.raises(InvalidConfig, match="the command 'sh' is not run") as caught:
        load(environ=given, path=file)
    assert "IDXCTL_TRUST_DIRECTORY" in str(caught.value.problems[0])
    assert [one.kind for one in caught.value.remarks] == ["foreign"]
    assert not (folder / "ran").exists()


@as_root
def test_a_command_that_a_stronger_source_makes_needless_is_no_problem(file):
    file.write_text(COMMANDS["url_command"].format(RUN))
    os.chown(file, NOBODY, NOBODY)
    assert load(environ=SERVERS, path=file).database.url


@as_root
def test_a_file_of_somebody_else_sends_no_secret_that_its_owner_could_not_read(folder, file):
    secret = folder / "secret"
    secret.write_text("of root")
    secret.chmod(0o600)
    file.write_text(f"[opensearch]\nurl = 'http://theirs'\nusername = 'u'\npassword_file = '{secret}'\n")
    os.chown(file, NOBODY, NOBODY)
    with pytest.raises(InvalidConfig, match="is not read, since"):
        load(environ=SERVERS, path=file)
    secret.chmod(0o644)
    assert load(environ=SERVERS, path=file).opensearch.password
    secret.chmod(0o600)
    os.chown(secret, NOBODY, NOBODY)
    assert load(environ=SERVERS, path=file).opensearch.password


def test_a_command_that_others_can_write_is_not_run(folder, file):
    program = folder / "url"
    program.write_text("#!/bin/sh\necho postgresql://x@127.0.0.1:1/x\n")
    program.chmod(0o755)
    file.write_text("[database]\nurl_command = './url'\n")
    assert load(environ={}, path=file).database.url
    program.chmod(0o757)
    with pytest.raises(InvalidConfig, match=r"the command './url' is not run: .* can be written by everybody"):
        load(environ={}, path=file)


# The command line ------------------------------------------------------------------------------------------------------


def command(folder, *arguments, **environ):
    env = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(Path(idxctl.__file__).parents[1]),
        "HOME": str(folder),
        **environ,
    }
    return subprocess.run(
        [sys.executable, "-m", "idxctl", *arguments], cwd=folder, env=env, capture_output=True, text=True, check=False
    )  # fmt: skip


@pytest.fixture
def planted(folder, file):
    """What is found in a directory of somebody's: a configuration that runs a command."""
    file.write_text(COMMANDS["url_command"].format(RUN) + f"[indexes.a]\ndocument = '''{QUERY}'''\n")
    return folder


@pytest.mark.parametrize("arguments", [("queue", "stats"), ("config", "show"), ("doctor",), ("dlq", "retry"), ("--config", "idxctl.toml", "queue", "stats")])  # fmt: skip
def test_a_configuration_planted_where_others_can_write_runs_nothing(planted, arguments):
    planted.chmod(0o777)
    done = command(planted, *arguments)
    assert not (planted / "ran").exists()
    if "doctor" not in arguments:
        assert done.returncode == 4
        assert "idxctl.toml can be replaced" in done.stderr


@as_root
def test_a_planted_configuration_in_a_folder_like_tmp_runs_nothing(planted, file):
    planted.chmod(0o1777)
    os.chown(file, NOBODY, NOBODY)
    done = command(planted, "queue", "stats")
    assert (done.returncode, (planted / "ran").exists()) == (4, False)
    assert "was put by nobody into" in done.stderr


@as_root
def test_a_foreign_configuration_is_read_with_a_warning_said_once(file, folder):
    os.chown(file, NOBODY, NOBODY)
    done = command(folder, "config", "show", **SERVERS)
    assert done.returncode == 0
    assert done.stderr.count("belongs to someone else (nobody)") == 1
    assert command(folder, "config", "show", IDXCTL_TRUST_DIRECTORY=str(folder), **SERVERS).stderr == ""


def test_a_trusted_folder_that_could_be_any_is_refused(folder, file):
    done = command(folder, "config", "show", IDXCTL_TRUST_DIRECTORY=".", **SERVERS)
    assert done.returncode == 4
    assert "IDXCTL_TRUST_DIRECTORY: '.' is not an absolute path" in done.stderr


@pytest.mark.parametrize("words", ["idxctl ", "idxctl queue ", "idxctl --config idxctl.toml queue ", "idxctl reindex --index ", "idxctl dlq retry --error "])  # fmt: skip
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_tab_key_runs_nothing(planted, words, shell):
    cursor = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split()))}
    typer = {"_TYPER_COMPLETE_ARGS": words, "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    command(planted, _IDXCTL_COMPLETE=f"complete_{shell}", **cursor, **typer)
    assert not (planted / "ran").exists()


@pytest.mark.parametrize("only_print", [True, False])
def test_cron_takes_no_configuration_that_others_can_write(folder, file, only_print):
    file.chmod(0o666)
    flag = ["--print"] if only_print else []
    done = command(folder, "cron", "install", *flag, **SERVERS)
    assert done.returncode == 4
    assert "idxctl.toml can be written by everybody" in done.stderr


@as_root
def test_cron_sources_no_env_file_of_others(folder, file):
    env_file = folder / "env"
    env_file.write_text("IDXCTL_HTTP_TOKEN=x")
    env_file.chmod(0o600)
    asked = ("cron", "install", "--print", "--env-file", str(env_file))
    assert command(folder, *asked, **SERVERS).returncode == 0
    os.chown(env_file, NOBODY, NOBODY)
    done = command(folder, *asked, **SERVERS)
    assert (done.returncode, "cron would run it as root" in done.stderr) == (4, True)
    os.chown(env_file, 0, 0)
    env_file.chmod(0o602)
    assert "can be written by everybody" in command(folder, *asked, **SERVERS).stderr


def test_help_looks_at_no_file(planted):
    planted.chmod(0o777)
    done = command(planted, "--help")
    assert (done.returncode, done.stderr) == (0, "")


# What is no file, and what those who wrote the configuration could not read ----------------------------------------------


@as_root
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_what_is_no_plain_file_is_not_waited_for_in_somebody_elses_folder(folder, kind):
    os.chown(folder, NOBODY, NOBODY)
    place = folder / "idxctl.toml"
    if kind == "pipe":
        os.mkfifo(place, 0o600)
    else:
        os.mknod(place, 0o600 | stat.S_IFCHR, os.makedev(1, 5))  # /dev/zero
    held = os.open(place, os.O_RDWR)  # a pipe that somebody may write to, and never does
    try:
        with pytest.raises(OSError, match="no plain file"):
            Trust().read(place)
    finally:
        os.close(held)


def test_a_file_without_end_is_read_to_a_bound(file):
    os.truncate(file, trust.LARGEST + 1)
    with pytest.raises(OSError, match="larger than 32 MB"):
        Trust().read(file)


@as_root
@pytest.mark.parametrize("key", ["password_file", "document", "mapping"])
def test_what_a_foreign_configuration_names_is_read_only_if_its_owner_could(folder, file, tmp_path, key):
    hidden = tmp_path / "hidden"
    hidden.mkdir(mode=0o700)
    secret = hidden / "secret"
    secret.write_text('{"mappings": {}}')
    secret.chmod(0o644)  # a mode that says nothing where the folder is closed
    inside = f"[opensearch]\nusername = 'u'\npassword_file = '{secret}'\n"
    index = f"[indexes.x]\ndocument = 'SELECT 1'\nmapping = {{}}\n{key} = '{secret}'\n[[indexes.x.watch]]\ntable = 't'\nkey = 'id'\n"
    index = "\n".join(line for line in index.splitlines() if line.split(" ")[0] != key or str(secret) in line)
    file.write_text(inside if key == "password_file" else index)
    tmp_path.chmod(0o755)
    for place in (folder, file):
        os.chown(place, NOBODY, NOBODY)
    with pytest.raises(InvalidConfig, match="is not read, since"):
        load(path=file, environ=SERVERS, need_indexes=key != "password_file")
    hidden.chmod(0o711)
    try:
        load(path=file, environ=SERVERS, need_indexes=key != "password_file")
    except InvalidConfig as error:
        assert "is not read, since" not in str(error)  # noqa: PT017


@pytest.mark.parametrize("text", ["a = " + "[" * 100_000, "a = " + "9" * 5000, '[opensearch]\nurl = "a\\u0000b"',
                                  '[opensearch]\nusername = "u"\npassword_file = "~nobody-of-that-name/x"'])  # fmt: skip
def test_a_configuration_that_cannot_be_meant_is_a_problem_and_no_internal_error(file, text):
    file.write_text(text)
    with pytest.raises(InvalidConfig):
        load(path=file, environ=SERVERS)
