"""The crontab entry without a crontab: schedules, the bytes of a tab, what may stand in a line."""

import shlex
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idxctl.core.errors import ConfigError, UsageError
from idxctl.cron.blocks import cut, find, put
from idxctl.cron.entry import Options, executable, prepare
from idxctl.cron.environment import split_environment
from idxctl.cron.reading import read
from idxctl.cron.schedule import Schedule
from idxctl.cron.tab import Account, Tab, account

BODY = b"*/5 * * * * /usr/bin/idxctl dlq retry --limit 100\n"
ME = Account("alice", 1000, 1000, Path("/home/alice"), is_me=True)
ROOT = Account("root", 0, 0, Path("/root"), is_me=True)
PATH = {"PATH": "/usr/local/bin:/usr/bin:/bin"}

FOREIGN_LINES = st.sampled_from(
    [
        b"MAILTO=ops@example.com\n",
        b"SHELL=/bin/bash\r\n",
        b"*/5 * * * * /usr/bin/backup --date=\\%F\n",
        b"0 3 * * *\t/usr/bin/tabs\there\n",
        b"# idxctl runs below\n",
        b"# BEGIN idxctl\n",
        b"#BEGIN idxctl: dlq-retry\n",
        b"# BEGIN idxctl: dlq-retry and more\n",
        b" # END idxctl: dlq-retry\n",
        b"\n",
        b"\r\n",
        b"# caf\xe9 \xff\x00\x85\n",
        b"lone\rreturn\n",
    ]
)
FOREIGN_TABS = st.builds(
    lambda lines, cut: b"".join(lines)[: -1 if cut and lines else None], st.lists(FOREIGN_LINES), st.booleans()
)


def entry(env=PATH, owner=ME, **options):
    return prepare(Options(**{"executable": ("/opt/idxctl",), **options}), owner, env)


def line(prepared, shell="/bin/sh"):
    return prepared.body(shell).decode().splitlines()[1]


# --- the bytes of a tab


@given(FOREIGN_TABS | st.binary().filter(lambda tab: b"idxctl" not in tab))
def test_removing_restores_the_former_bytes(tab):
    assert cut(put(tab, "dlq-retry", BODY), "dlq-retry") == tab


@given(FOREIGN_TABS)
def test_installing_twice_changes_nothing(tab):
    once = put(tab, "dlq-retry", BODY)
    assert once.startswith(tab)
    assert put(once, "dlq-retry", BODY) == once


@given(FOREIGN_TABS, st.permutations(["a", "b", "c"]), st.permutations(["a", "b", "c"]))
def test_several_entries_leave_in_any_order_without_a_trace(tab, coming, going):
    content = tab
    for name in coming:
        content = put(content, name, BODY)
    for name in going:
        content = cut(content, name)
    assert content == tab


@given(FOREIGN_TABS, FOREIGN_TABS)
def test_a_changed_entry_is_replaced_where_it_stands(above, below):
    tab = put(above, "dlq-retry", BODY) + below
    changed = put(tab, "dlq-retry", b"@hourly true\n")
    assert changed.startswith(above)
    assert changed.endswith(below)
    assert b"@hourly true\n" in changed
    assert BODY not in changed.removeprefix(above)


def test_lines_added_below_keep_the_newline_that_separates_them():
    tab = put(b"* * * * * above", "dlq-retry", BODY) + b"* * * * * below\n"
    assert cut(tab, "dlq-retry") == b"* * * * * above\n* * * * * below\n"


def test_a_block_turned_to_crlf_by_an_editor_is_still_ours():
    tab = put(b"MAILTO=me\n", "dlq-retry", BODY).replace(b"\n", b"\r\n")
    assert [block.name for block in find(tab)] == ["dlq-retry"]
    assert cut(tab, "dlq-retry") == b"MAILTO=me\r\n"


@pytest.mark.parametrize(
    ("tab", "says"),
    [
        (b"x\n# BEGIN idxctl: a\n* * * * * true\n", ["a on line 2 has no END"]),
        (b"x\n\n# END idxctl: a\n", ["a on line 3 has no BEGIN"]),
        (b"# BEGIN idxctl: a\n# BEGIN idxctl: b\n# END idxctl: b\n", ["a on line 1", "BEGIN on line 2"]),
        (b"# BEGIN idxctl: a\n# END idxctl: b\n", ["b on line 2 has no BEGIN"]),
        (b"# BEGIN idxctl: a\n# END idxctl: a\n" * 2, ["two blocks are named a", "lines 1-2 and 3-4"]),
        (b"# BEGIN idxctl: a\r\nlone\rreturn\n", ["a on line 1 has no END"]),
    ],
)
def test_half_a_block_is_an_error_that_names_the_lines(tab, says):
    for call in (lambda: put(tab, "z", BODY), lambda: cut(tab, "a")):
        with pytest.raises(ConfigError) as caught:
            call()
        assert all(words in caught.value.message for words in [*says, "nothing was changed"])
        assert "crontab -e" in caught.value.hint


# --- schedules


@pytest.mark.parametrize(
    ("schedule", "now", "expected"),
    [
        ("*/5 * * * *", "2026-11-24 14:20:00", "2026-11-24 14:25"),
        ("*/5 * * * *", "2026-11-24 14:19:59", "2026-11-24 14:20"),
        ("@hourly", "2026-11-24 23:30:00", "2026-11-25 00:00"),
        ("30 4 29 2 *", "2026-11-24 00:00:00", "2028-02-29 04:30"),
        ("0 9 * * mon-fri", "2026-11-27 09:00:00", "2026-11-30 09:00"),
        ("0 9 * * 7", "2026-11-24 00:00:00", "2026-11-29 09:00"),
        ("0 0 13 * fri", "2026-11-24 00:00:00", "2026-11-27 00:00"),  # either day suffices
        ("0 0 */2 * mon", "2026-11-24 00:00:00", "2026-12-07 00:00"),  # a field that begins with * must match too
        ("  7\t8  * * * ", "2026-11-24 00:00:00", "2026-11-24 08:07"),
    ],
)
def test_the_next_run_is_the_one_cron_makes(schedule, now, expected):
    found = Schedule(schedule).next_run(datetime.fromisoformat(now).astimezone())
    assert found == datetime.fromisoformat(expected).astimezone()


def test_reboot_has_no_time():
    assert Schedule("@reboot").next_run(datetime.now().astimezone()) is None


@pytest.mark.parametrize(
    "schedule",
    [
        *("", "* * * *", "* * * * * *", "61 * * * *", "*/0 * * * *", "@fortnightly", "hourly", "x y z a b"),
        *("5-1 * * * *", "< * * * *", "1~5 * * * *", "* * * * * rm -rf /", "*\n* * * * root", "0 0 31 2 *"),
        *(", * * * *", "% * * * *"),
    ],
)
def test_a_schedule_that_cron_cannot_mean_is_refused_with_an_example(schedule):
    with pytest.raises(UsageError) as caught:
        Schedule(schedule)
    assert "schedule" in caught.value.message
    assert '"*/5 * * * *"' in caught.value.hint


# --- the line


def test_the_default_entry_retries_a_hundred_every_five_minutes():
    assert line(entry()) == (
        "*/5 * * * * IDXCTL_CHANNEL=cron /usr/bin/flock -n -E 0 /home/alice/.local/state/idxctl/dlq-retry.lock "
        "/opt/idxctl dlq retry --limit 100 >> /home/alice/.local/state/idxctl/dlq-retry.log 2>&1"
    )


def test_root_logs_to_var_log():
    assert entry(owner=ROOT).log == Path("/var/log/idxctl/dlq-retry.log")


def test_five_fields_stay_as_written_where_the_library_would_say_hourly():
    assert line(entry(schedule="0 * * * *")).startswith("0 * * * * IDXCTL_CHANNEL=cron /usr/bin/flock")
    assert line(entry(schedule="@hourly")).startswith("@hourly IDXCTL_CHANNEL=cron /usr/bin/flock")


def test_a_percent_sign_is_escaped_as_cron_wants_it():
    assert r"/log/50\%.log" in line(entry(log=Path("/log/50%.log")))


def test_the_config_file_is_named_by_its_absolute_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert f"/opt/idxctl --config {tmp_path}/idxctl.toml dlq retry" in line(entry(config=Path("idxctl.toml")))


def test_settings_that_are_no_secret_go_into_the_line():
    env = {**PATH, "PGHOST": "db 1", "IDXCTL_OPENSEARCH_URL": "https://search:9200", "HOME": "/x", "PGDATA": "/d"}
    assert "* IDXCTL_OPENSEARCH_URL=https://search:9200 PGHOST='db 1' IDXCTL_CHANNEL=cron /usr/bin/flock" in line(
        entry(env)
    )


SECRETS = {
    "PGPASSWORD": "hunter2",
    "PGOPTIONS": "-c app.key=hunter2",
    "IDXCTL_DATABASE_URL": "postgresql://shop:hunter2@db/shop",
    "IDXCTL_OPENSEARCH_URL": "https://a:9200,https://u:hunter2@b:9200",
    "IDXCTL_OPENSEARCH_PASSWORD": "hunter2",
    "IDXCTL_OPENSEARCH_BEARER_TOKEN": "hunter2",
    "IDXCTL_OPENSEARCH_API_KEY": "hunter2",
    "IDXCTL_HTTP_TOKEN": "hunter2",
    "IDXCTL_HTTP_URL": "http://h/?api_key=hunter2",
}


def test_a_secret_is_never_written_and_is_reported_by_name():
    prepared = entry({**PATH, **SECRETS})
    assert b"hunter2" not in prepared.body()
    assert set(prepared.withheld) == set(SECRETS)
    assert prepared.environment == {}


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://shop:p/w@db/shop",
        "postgresql://shop:p@ss@db/shop",
        "postgresql://db/shop?user=shop&password=x",
        "postgresql://db/shop?pass%77ord=x",
        "host=db password = 'x'",
        "host=db PASSWORD=x",
    ],
)
def test_a_url_that_may_hold_a_password_is_withheld(url):
    assert split_environment({"IDXCTL_DATABASE_URL": url}) == ({}, ("IDXCTL_DATABASE_URL",))


@pytest.mark.parametrize(
    "url", ["postgresql://shop@db:5432/shop", "host=db user=shop passfile=/p", "postgresql:///shop"]
)
def test_a_url_without_a_password_is_written(url):
    assert split_environment({"IDXCTL_DATABASE_URL": url}) == ({"IDXCTL_DATABASE_URL": url}, ())


def test_a_relative_path_in_a_variable_becomes_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    env = {"IDXCTL_OPENSEARCH_PASSWORD_FILE": "pw", "PGPASSFILE": "~/p", "PGSSLROOTCERT": "system", "HOME": "/h"}
    monkeypatch.setenv("HOME", "/h")
    assert split_environment(env)[0] == {
        "IDXCTL_OPENSEARCH_PASSWORD_FILE": f"{tmp_path}/pw",
        "PGPASSFILE": "/h/p",
        "PGSSLROOTCERT": "system",
    }


def test_path_is_written_only_for_a_configuration_that_runs_a_command():
    assert split_environment({"PATH": "/p"}, 'password_command = ["pass"]')[0] == {"PATH": "/p"}
    assert split_environment({"PATH": "/p"}, 'password_file = "x"')[0] == {}


def test_aws_variables_count_only_where_requests_are_signed():
    env = {"AWS_PROFILE": "search", "AWS_SECRET_ACCESS_KEY": "hunter2"}
    assert split_environment(env) == ({}, ())
    assert split_environment(env, 'aws_region = "eu"') == ({"AWS_PROFILE": "search"}, ("AWS_SECRET_ACCESS_KEY",))


def test_names_that_the_env_file_sets_are_neither_written_nor_missed(tmp_path):
    file = tmp_path / "idxctl.env"
    file.write_text("# ours\nexport PGPASSWORD='hunter2'\nPGHOST=other\n")
    prepared = entry({**PATH, "PGPASSWORD": "hunter2", "PGHOST": "db", "PGUSER": "shop"}, env_file=file)
    assert prepared.withheld == ()
    assert prepared.environment == {"PGUSER": "shop"}
    assert f"{{ set -a && . {file} && set +a && PGUSER=shop IDXCTL_CHANNEL=cron /usr/bin/flock" in line(prepared)


def test_an_env_file_that_others_can_read_is_remarked(tmp_path):
    file = tmp_path / "idxctl.env"
    file.touch(mode=0o644)
    assert any("chmod 600" in remark for remark in entry(env_file=file).remarks)
    file.chmod(0o600)
    assert not any("chmod 600" in remark for remark in entry(env_file=file).remarks)


def test_a_missing_env_file_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        entry(env_file=tmp_path / "none")


def test_a_tab_whose_shell_is_not_posix_gets_the_line_through_sh():
    prepared = entry(log=Path("/log/it's"))
    assert shlex.split(line(prepared, "/usr/bin/fish"))[5:7] == ["/bin/sh", "-c"]
    assert "/bin/sh -c" not in line(prepared, "/bin/bash")


@pytest.mark.parametrize("name", ["", "a b", "x\ny", "-x", "é", "a" * 65, "../x"])
def test_a_name_that_does_not_fit_into_a_marker_is_refused(name):
    with pytest.raises(UsageError):
        entry(name=name)


def test_a_line_break_in_a_path_is_refused():
    with pytest.raises(UsageError, match="one line"):
        entry(log=Path("/x\n* * * * * root"))


def test_a_machine_without_flock_is_told_what_to_install(tmp_path):
    with pytest.raises(ConfigError, match="no flock") as caught:
        entry({"PATH": str(tmp_path)})
    assert "util-linux" in caught.value.hint


def test_printing_for_another_machine_needs_no_flock_here(tmp_path):
    options = Options(executable=("/opt/idxctl",))
    prepared = prepare(options, ME, {"PATH": str(tmp_path)}, here=False)
    assert prepared.flock == "/usr/bin/flock"
    assert any("no flock" in remark for remark in prepared.remarks)


def test_no_crontab_program_is_an_error_with_ways_out(tmp_path):
    with pytest.raises(ConfigError, match="no crontab program") as caught:
        Tab(ME, path=str(tmp_path))
    assert all(way in caught.value.hint for way in ("--print", "install cron", "systemd"))


def test_an_unknown_user_is_a_usage_error():
    with pytest.raises(UsageError, match="no such user"):
        account("no-such-user-here")


@pytest.mark.parametrize("argv0", ["idxctl", "/opt/venv/bin/idxctl"])
def test_the_executable_is_absolute(argv0, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    program = tmp_path / "idxctl"
    program.touch(mode=0o755)
    found = executable(argv0, path=str(tmp_path))
    assert found == ((str(program),) if argv0 == "idxctl" else (argv0,))


# --- reading it back

NOW = datetime(2026, 11, 24, 14, 21).astimezone()


@pytest.mark.parametrize("shell", ["/bin/sh", "/usr/bin/fish"])
@pytest.mark.parametrize("with_env_file", [False, True])
@pytest.mark.parametrize("log", [Path("/log/50% 'x'.log"), None])
def test_what_is_shown_is_what_was_put(shell, with_env_file, log, tmp_path):
    file = tmp_path / "env"
    file.touch()
    prepared = entry({**PATH, "PGHOST": "db"}, log=log, to_logger=log is None, env_file=file if with_env_file else None)
    block = find(put(b"x\n", "dlq-retry", prepared.body(shell)))[0]
    shown = read(block, "alice", NOW)
    assert shown.command == "/opt/idxctl dlq retry --limit 100"
    assert shown.schedule == "*/5 * * * *"
    assert shown.log == (str(log) if log else None)
    assert shown.to_logger is (log is None)
    assert shown.next_run_at == datetime(2026, 11, 24, 14, 25).astimezone()
    assert shown.first_line == 2


@pytest.mark.parametrize(
    "body", [b"", b"#*/5 * * * * off\n", b"a\nb\n", b"61 * * * * x\n", b"* * * * * 'x\n", b"\xff\n"]
)
def test_a_block_edited_by_hand_is_shown_without_what_cannot_be_made_out(body):
    block = find(put(b"", "x", body))[0]
    shown = read(block, "alice", NOW)
    assert (shown.schedule, shown.next_run_at) == (None, None)
