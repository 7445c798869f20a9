"""The files of the migrations, where they are looked for, and the decisions that need no server."""

from __future__ import annotations

import re

import pytest

from idxctl.core.errors import ConfigError, Refused, UsageError
from idxctl.postgres import migrate, migrate_down, migrate_offline, migrations
from idxctl.postgres.migrate_down import DownPlan


def write(place, *names: str) -> None:
    place.mkdir(parents=True, exist_ok=True)
    for name in names:
        (place / name).write_text(f"-- {name}\n")


# Files --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", migrations.known(), ids=lambda step: step.title)
def test_every_migration_says_whether_old_workers_survive_and_has_a_way_down(step):
    assert re.search(r"^-- Old workers: (survive|stop|none)\b", step.up, re.MULTILINE)
    assert step.down
    assert "CASCADE" not in re.sub("ON DELETE CASCADE", "", step.up + step.down)


@pytest.mark.parametrize("step", migrations.known(), ids=lambda step: step.title)
def test_every_function_pins_its_search_path(step):
    heads = re.findall(r"CREATE OR REPLACE FUNCTION.*?AS \$", step.up, re.DOTALL)
    wanted = "SET search_path FROM CURRENT" if step.version <= 2 else "SET search_path = pg_catalog, pg_temp AS"
    assert all(wanted in head for head in heads)
    assert len(heads) == len(re.findall(r"CREATE (?:OR REPLACE )?FUNCTION", step.up))


def test_the_way_down_names_every_table_whose_rows_it_loses():
    first = migrations.known()[0]
    lost = {table for table, _ in first.loses}
    assert {"opensearch_indexing_queue", "opensearch_indexing_inflight", "opensearch_indexing_generations"} <= lost
    assert lost <= set(re.findall(r"DROP TABLE IF EXISTS (\w+)", first.down))
    assert set(re.findall(r"CREATE TABLE IF NOT EXISTS (\w+)", first.up)) == set(
        re.findall(r"DROP TABLE IF EXISTS (\w+)", first.down)
    )


def test_the_package_is_looked_in_before_the_checkout(tmp_path, monkeypatch):
    module = tmp_path / "idxctl" / "postgres" / "migrations.py"
    monkeypatch.setattr(migrations, "__file__", str(module))
    write(tmp_path / "migrations", "000001_checkout.up.sql")
    assert migrations.directory() == tmp_path / "migrations"
    write(tmp_path / "idxctl" / "migrations", "000001_wheel.up.sql")
    assert migrations.directory() == tmp_path / "idxctl" / "migrations"


def test_an_installation_without_migrations_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(migrations, "__file__", str(tmp_path / "idxctl" / "postgres" / "migrations.py"))
    with pytest.raises(ConfigError, match="migrations are missing"):
        migrations.known()


def test_files_are_read_in_order_with_their_ways_down(tmp_path):
    write(tmp_path, "000002_b.up.sql", "000001_a.up.sql", "000001_a.down.sql")
    first, second = migrations.known(tmp_path)
    assert (first.title, first.down, second.title, second.down) == (
        "000001_a",
        "-- 000001_a.down.sql\n",
        "000002_b",
        "",
    )


@pytest.mark.parametrize(
    "names", [("000002_b.up.sql",), ("000001_a.up.sql", "000003_c.up.sql"), ("000001_a.up.sql", "000001_b.up.sql")]
)
def test_a_gap_or_a_number_given_twice_is_an_error(tmp_path, names):
    write(tmp_path, *names)
    with pytest.raises(ConfigError, match="numbered"):
        migrations.known(tmp_path)


def test_a_file_with_an_odd_name_is_an_error(tmp_path):
    write(tmp_path, "1_a.up.sql")
    with pytest.raises(ConfigError, match="NNNNNN_name"):
        migrations.known(tmp_path)


# Refusals -----------------------------------------------------------------------------------------------------------


def plan(**given) -> DownPlan:
    return DownPlan(**{"version": 2, "to": 0, "undoes": ("b", "a"), "loses": (), **given})


def test_a_plan_that_undoes_nothing_is_never_refused():
    migrate_down.refuse(plan(undoes=(), triggers=("listings",)), force=False)


def test_triggers_stand_against_going_down_whatever_is_forced():
    tables = tuple(f"t{n}" for n in range(5))
    with pytest.raises(Refused, match=r"\(t0, t1, t2 and 2 more\)"):
        migrate_down.refuse(plan(triggers=tables), force=True)


@pytest.mark.parametrize("given", [{"in_flight": 5}, {"workers": ("w",)}, {"holds": ("dead letters (3)",)}])
def test_force_overrides_the_rest(given):
    with pytest.raises(Refused):
        migrate_down.refuse(plan(**given), force=False)
    migrate_down.refuse(plan(**given), force=True)


def test_generations_alone_are_no_reason_to_refuse():
    migrate_down.refuse(plan(loses=(("generations", 3),)), force=False)


# The script for a DBA -----------------------------------------------------------------------------------------------


def test_the_script_names_schema_and_index_safely():
    script = migrate_offline.offline_sql(schema='a "b"', default_index="o'clock")
    assert 'SET LOCAL search_path = "a ""b""", pg_temp;' in script
    assert "set_config('idxctl.default_index', 'o''clock', true)" in script
    assert script.index("BEGIN") < script.index("LOCK TABLE opensearch_indexing_migrations") < script.index("$guard$")


def test_the_script_from_a_version_leaves_out_what_is_there():
    script = migrate_offline.offline_sql(from_=1)
    assert "-- 000001_tables" not in script
    assert "-- 000002_dead_letters" in script


def test_a_script_backwards_is_refused():
    with pytest.raises(UsageError):
        migrate_offline.offline_sql(from_=2, to=1)


def test_a_server_older_than_the_readme_claims_is_refused():
    migrate.refuse_old_server(140_000)
    with pytest.raises(ConfigError, match="PostgreSQL 13 is too old") as refused:
        migrate.refuse_old_server(130_023)
    assert "14 or newer" in refused.value.hint
