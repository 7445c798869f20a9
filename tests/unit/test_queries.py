"""Somebody's SQL, made fit to stand in brackets."""

from __future__ import annotations

import pytest

from idxctl.core.queries import bare


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("SELECT 1;", "SELECT 1"),
        ("SELECT 1 ; ;\n", "SELECT 1"),
        ("SELECT 1; -- the end", "SELECT 1"),
        ("SELECT 1;\n/* a; /* nested; */ b */\n-- more;\n", "SELECT 1"),
        ("SELECT 1 -- no semicolon", "SELECT 1 -- no semicolon"),
        ("SELECT ';' -- ';\n;", "SELECT ';' -- ';"),
        ("SELECT 'it''s;';", "SELECT 'it''s;'"),
        (r"SELECT E'it\'s; --';", r"SELECT E'it\'s; --'"),
        (r"SELECT 'ends in a backslash\';", r"SELECT 'ends in a backslash\'"),
        ('SELECT "a;""--b";', 'SELECT "a;""--b"'),
        ("SELECT $$;$ --$$;", "SELECT $$;$ --$$"),
        ("SELECT $é1$;$$;$é1$; -- x", "SELECT $é1$;$$;$é1$"),
        ("SELECT a$b$c FROM t$;", "SELECT a$b$c FROM t$"),
        ("SELECT date'2024-01-01;';", "SELECT date'2024-01-01;'"),
        ("SELECT 1; SELECT 2;", "SELECT 1; SELECT 2"),
        ("SELECT 1; 'unclosed", "SELECT 1; 'unclosed"),
        ("/* unclosed; ", "/* unclosed;"),
        ("-- nothing\n;", "-- nothing"),
        ("", ""),
    ],
)
def test_the_semicolon_that_ends_a_query_goes_with_the_comments_behind_it(text, wanted):
    assert bare(text) == wanted
