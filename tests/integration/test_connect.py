"""Connections to PostgreSQL: a server that went away without a word is noticed, by the kernel's timers and by ours."""

import threading

import psycopg
import pytest

from idxctl.config.settings import DatabaseSettings
from idxctl.core.errors import PostgresUnreachable
from idxctl.core.secret import Secret
from idxctl.postgres.connect import Pool, connect
from support.proxy import Proxy

TIMERS = {"keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout"}


def settings(url):
    return DatabaseSettings(url=Secret(url))


def parameters(connection):
    return connection.raw.info.get_parameters()


def test_dead_connections_are_found_in_half_a_minute_not_in_hours(database):
    with connect(settings(database)) as connection:
        found = {name: int(parameters(connection)[name]) for name in TIMERS}
    assert found["keepalives_idle"] + found["keepalives_interval"] * found["keepalives_count"] <= 30
    assert found["tcp_user_timeout"] <= 30_000


def test_timers_of_the_conninfo_are_the_users(database):
    with connect(settings(f"{database}?keepalives_idle=77&tcp_user_timeout=88")) as connection:
        found = parameters(connection)
    assert (found["keepalives_idle"], found["tcp_user_timeout"], found["keepalives_count"]) == ("77", "88", "3")


def test_a_silent_server_is_given_up_and_the_thread_gets_another_connection(database):
    with Proxy(database) as proxy:
        pool = Pool(settings(proxy.url))
        in_vain = threading.Timer(20, proxy.cut)
        in_vain.start()
        with pool.patient(0.3):
            first = pool.mine()
            proxy.black_hole()
            with pytest.raises(PostgresUnreachable, match=r"no answer for 0.3 s"):
                first.execute(b"SELECT 1")
            in_vain.cancel()
            proxy.restore()
            assert pool.mine() is not first
            assert pool.mine().execute(b"SELECT 1").fetchone() == (1,)
        pool.close()


def test_a_long_statement_is_waited_for_where_it_may_be_long(database):
    pool = Pool(settings(database))
    with pool.patient(0.3):
        with pool.mine().patient(30):
            assert pool.mine().execute(b"SELECT pg_sleep(0.6)::text").fetchone() == ("",)
        with pytest.raises(PostgresUnreachable):
            pool.mine().execute(b"SELECT pg_sleep(0.6)")
    assert pool.mine().execute(b"SELECT pg_sleep(0.6)::text").fetchone() == ("",)  # nobody is in a hurry
    pool.close()


def test_a_client_that_is_stopped_in_a_transaction_is_given_up_by_the_server(database):
    """Its locks go with it, and what it meets when it goes on is an outage, not a refusal."""
    pool = Pool(settings(database))

    def stop_for_long() -> None:
        with pool.mine().transaction():
            pool.mine().execute(b"SELECT pg_advisory_xact_lock(1)")
            other.execute("SET lock_timeout = '20s'")
            other.execute("SELECT pg_advisory_lock(1)")  # waits until it is free
            pool.mine().execute(b"SELECT 1")

    with psycopg.connect(database, autocommit=True) as other, pool.patient(0.3), pytest.raises(PostgresUnreachable):
        stop_for_long()
    pool.close()


def test_nothing_in_the_protocol_outlives_its_transaction(database):
    pool = Pool(settings(database))
    with pool.patient(5), pool.mine().transaction(local={"jit": "off", "row_security": "off"}):
        assert pool.mine().execute(b"SHOW idle_in_transaction_session_timeout").fetchone() == ("5s",)
    changed = pool.mine().execute(b"SELECT name FROM pg_settings WHERE source = 'session'").fetchall()
    assert changed == []
    pool.close()
