"""A scrub's pace and the causes it names are pure; so is what the configuration says of it."""

from __future__ import annotations

import pytest

from idxctl.config.load import load
from idxctl.config.problems import InvalidConfig
from idxctl.config.settings import Scrub
from idxctl.verify import causes
from idxctl.verify.causes import Cause
from idxctl.verify.judge import Judged, Kind
from idxctl.verify.pace import Pace

DAY = 86_400.0
INDEXES = """
[indexes.listings]
document = "SELECT 1 AS document_id, '{}'::jsonb AS document"
"""


def read(tmp_path, text: str, **flags: str):
    path = tmp_path / "idxctl.toml"
    path.write_text(text + INDEXES)
    return load(environ={}, path=path, flags={f"scrub.{name}": value for name, value in flags.items()})


def test_ten_million_documents_are_compared_in_half_a_day():
    pace = Pace.of(10_000_000, DAY)
    assert pace.seconds_for(10_000_000, 10_000_000) == pytest.approx(DAY / 2)
    assert 250 < pace.rows < 300
    assert 200 <= pace.range_size <= 2000


def test_a_small_index_is_through_in_seconds_and_at_rest_for_the_others():
    assert Pace.of(1000, DAY).seconds_for(1000, 1000) < 15
    assert Pace.of(0, DAY).range_size == 200


def test_who_is_behind_goes_faster_but_not_at_any_speed():
    pace = Pace.of(1_000_000, DAY)
    assert pace.at_most("rows") == 4 * pace.rows
    assert pace.at_most("ids") == 4 * pace.ids


ROW = b'{"name": "lamp", "price": 1}\n'


@pytest.mark.parametrize(
    ("said", "given", "cause"),
    [
        (Judged(Kind.STALE), {"dead": True}, Cause.REFUSED),
        (Judged(Kind.ORPHAN, routing="x"), {}, Cause.ELSEWHERE),
        (Judged(Kind.STALE, foreign=True), {}, Cause.FOREIGN),
        (Judged(Kind.MISSING), {}, Cause.NOT_WRITTEN),
        (Judged(Kind.ORPHAN), {}, Cause.NOT_DELETED),
        (Judged(Kind.STALE), {"row": ROW, "held": b'{"name":"other"}'}, Cause.REWRITTEN),
        (Judged(Kind.STALE), {"row": ROW, "held": b'{"name":"other"}', "pipeline": True}, Cause.NOT_CURRENT),
        (Judged(Kind.STALE), {"row": ROW, "held": b'{"name": "other"}'}, Cause.NOT_CURRENT),
        (Judged(Kind.STALE), {"row": b'{"a\\"b" : 1}', "held": b'{"a\\"b" : 2}'}, Cause.NOT_CURRENT),
        (Judged(Kind.STALE), {"row": ROW, "held": b"{}"}, Cause.NOT_CURRENT),
    ],
)
def test_the_cause_is_what_the_two_of_them_show(said, given, cause):
    assert causes.of(said, **given) is cause
    assert cause.sentence


def test_nothing_is_scrubbed_unless_a_period_is_named(tmp_path):
    assert read(tmp_path, "").scrub_of("listings") is None


def test_an_index_has_of_its_own_what_it_names_and_the_rest_from_the_section(tmp_path):
    settings = read(tmp_path, '[scrub]\nevery = "24h"\nrepair = false\n[indexes.listings.scrub]\nevery = "6h"\n')
    assert settings.scrub_of("listings") == Scrub(21_600.0, repair=False)
    assert settings.scrub_of("not in the file") == Scrub(DAY, repair=False)


def test_an_index_that_is_off_stays_off_whatever_the_flag_says(tmp_path):
    settings = read(tmp_path, '[indexes.listings.scrub]\nevery = "off"\n', every="1h")
    assert settings.scrub_of("listings") is None
    assert settings.scrub_of("another") == Scrub(3600.0)
    assert settings.sources["scrub.every"] == "--scrub"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[scrub]\nevery = "soon"\n', "every"),
        ("[scrub]\nevery = 24\n", "has no unit"),
        ('[indexes.listings.scrub]\nevery = "0s"\n', "scrub: every"),
        ('[indexes.listings.scrub]\nevry = "1h"\n', "did you mean"),
        ("[indexes.listings]\nscrub = true\ndocument = 'SELECT 1'\n[indexes.other]\n#", "must be a table"),
    ],
)
def test_what_cannot_be_meant_is_said(tmp_path, text, says):
    if "indexes.other" in text:
        text = text.replace("[indexes.other]\n#", "")
        (tmp_path / "idxctl.toml").write_text(text)
        with pytest.raises(InvalidConfig, match=says):
            load(environ={}, path=tmp_path / "idxctl.toml")
        return
    with pytest.raises(InvalidConfig, match=says):
        read(tmp_path, text)
