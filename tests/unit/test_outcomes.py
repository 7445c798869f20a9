"""Every answer that OpenSearch gives to a bulk, and what it means: BULK's table as a test."""

from __future__ import annotations

import pytest

from idxctl.core import redaction
from idxctl.core.errors import OpenSearchRefused, OpenSearchUnreachable
from idxctl.worker.outcomes import Cause, Kind, Verdict, alone, current_version, of_item, of_request, of_the_way

ITEMS = [
    (200, "", "", Kind.DONE, None),
    (201, "", "", Kind.DONE, None),
    (404, "", "", Kind.DONE, None),  # a delete that found nothing
    (409, "version_conflict_engine_exception", "", Kind.SUPERSEDED, None),
    (400, "mapper_parsing_exception", "", Kind.PERMANENT, None),
    (400, "strict_dynamic_mapping_exception", "", Kind.PERMANENT, None),
    (400, "illegal_argument_exception", "Document contains at least one immense term", Kind.PERMANENT, None),
    (400, "illegal_argument_exception", "Limit of total fields [1000] has been exceeded", Kind.PERMANENT, None),
    (400, "illegal_argument_exception", "mapper [price] cannot be changed from type [float]", Kind.PERMANENT, None),
    (400, "routing_missing_exception", "", Kind.BLOCKED, None),
    (400, "index_closed_exception", "", Kind.BLOCKED, None),
    (400, "illegal_argument_exception", "no write index is defined for alias [a]", Kind.BLOCKED, None),
    (400, "illegal_argument_exception", "pipeline with id [p] does not exist", Kind.BLOCKED, None),
    (404, "index_not_found_exception", "", Kind.GONE, None),
    (403, "cluster_block_exception", "index write (api)", Kind.BLOCKED, None),
    (403, "security_exception", "no permissions for [indices:data/write/bulk]", Kind.BLOCKED, None),
    (401, "a_type_of_tomorrow", "", Kind.BLOCKED, None),
    (429, "cluster_block_exception", "disk usage exceeded flood-stage watermark", Kind.BLOCKED, None),
    (503, "cluster_block_exception", "state not recovered / initialized", Kind.TRANSIENT, Cause.SHARDS),
    (429, "rejected_execution_exception", "", Kind.TRANSIENT, Cause.OVERLOAD),
    (429, "circuit_breaking_exception", "", Kind.TRANSIENT, Cause.OVERLOAD),
    (503, "unavailable_shards_exception", "", Kind.TRANSIENT, Cause.SHARDS),
    (503, "process_cluster_event_timeout_exception", "", Kind.TRANSIENT, None),
    (500, "node_closed_exception", "", Kind.TRANSIENT, None),
    (500, "node_not_connected_exception", "", Kind.TRANSIENT, None),
    (500, "already_closed_exception", "", Kind.TRANSIENT, Cause.SHARDS),
    (500, "i_o_exception", "", Kind.TRANSIENT, Cause.SHARDS),
    (500, "translog_exception", "", Kind.TRANSIENT, Cause.SHARDS),
    (418, "a_type_of_tomorrow", "", Kind.PERMANENT, None),
    (429, "a_type_of_tomorrow", "", Kind.TRANSIENT, Cause.OVERLOAD),
    (500, "a_type_of_tomorrow", "", Kind.DOUBTFUL, None),  # the cap of what may pass: attempts are spent on it
    (503, "a_type_of_tomorrow", "", Kind.TRANSIENT, Cause.SHARDS),
]


@pytest.mark.parametrize(("status", "error_type", "reason", "kind", "cause"), ITEMS)
def test_item_is_sorted_by_type_and_status(status, error_type, reason, kind, cause):
    verdict = of_item(status, error_type, reason)
    assert (verdict.kind, verdict.cause, verdict.whole) == (kind, cause, False)


PRESSURE = "rejected execution of coordinating operation [coordinating_and_primary_bytes=0, replica_bytes=0, all_bytes=0, coordinating_operation_bytes={}, max_coordinating_and_primary_bytes=2097152]"

REQUESTS = [
    (400, "action_request_validation_exception", "id is too long", Kind.SPLIT, None),
    (400, "illegal_argument_exception", "Malformed action/metadata line", Kind.SPLIT, None),
    (400, "parsing_exception", "", Kind.SPLIT, None),
    (401, "security_exception", "", Kind.BLOCKED, None),
    (403, "security_exception", "", Kind.BLOCKED, None),
    (403, "", "", Kind.BLOCKED, None),
    (403, "cluster_block_exception", "cluster read-only", Kind.BLOCKED, None),
    (404, "index_not_found_exception", "", Kind.GONE, None),
    (408, "", "", Kind.TRANSIENT, None),
    (413, "", "", Kind.SPLIT, Cause.TOO_LARGE),
    (429, "rejected_execution_exception", PRESSURE.format(1_000), Kind.TRANSIENT, Cause.OVERLOAD),
    (429, "rejected_execution_exception", PRESSURE.format(3_000_000), Kind.SPLIT, Cause.TOO_LARGE),  # can never pass
    (429, "circuit_breaking_exception", "", Kind.TRANSIENT, Cause.OVERLOAD),
    (429, "cluster_block_exception", "flood stage", Kind.BLOCKED, None),
    (429, "", "", Kind.TRANSIENT, Cause.OVERLOAD),  # a proxy's
    (500, "null_pointer_exception", "", Kind.SPLIT, Cause.FAULT),
    (500, "node_closed_exception", "", Kind.TRANSIENT, None),
    (500, "", "", Kind.TRANSIENT, None),  # a proxy's
    (502, "", "", Kind.TRANSIENT, None),
    (404, "", "", Kind.TRANSIENT, None),  # a proxy's
    (400, "", "", Kind.TRANSIENT, None),  # a proxy's
    (503, "cluster_manager_not_discovered_exception", "", Kind.TRANSIENT, None),
    (503, "cluster_block_exception", "state not recovered / initialized", Kind.TRANSIENT, None),
    (504, "", "", Kind.TRANSIENT, None),
    (302, "", "", Kind.BLOCKED, None),
    (405, "", "", Kind.BLOCKED, None),
]


@pytest.mark.parametrize(("status", "error_type", "reason", "kind", "cause"), REQUESTS)
def test_whole_request_is_sorted_by_type_and_status(status, error_type, reason, kind, cause):
    verdict = of_request(OpenSearchRefused("no", status=status, error_type=error_type, reason=reason))
    assert (verdict.kind, verdict.cause, verdict.whole) == (kind, cause, True)


@pytest.mark.parametrize(("status", "error_type", "reason", "kind", "cause"), REQUESTS)
def test_what_is_not_in_opensearchs_own_words_may_be_the_ways(status, error_type, reason, kind, cause):
    verdict = of_request(OpenSearchRefused("no", status=status, error_type=error_type, reason=reason))
    assert verdict.suspect == (not error_type and status != 413)


def test_a_document_that_the_way_fails_on_is_told_what_answered():
    verdict = of_the_way(of_request(OpenSearchRefused("no", status=403, page="Blocked \ud800\0 by us")))
    assert (verdict.kind, verdict.error_type) == (Kind.DOUBTFUL, "way_http_403")
    assert "something answered with status 403" in verdict.reason
    assert "Blocked \\ud800\\u0000 by us" in verdict.reason
    assert len(verdict.reason) < 400
    hidden = redaction.without_values(verdict.reason)
    assert "something answered with status 403" in hidden
    assert "Blocked" not in hidden
    slow = of_the_way(of_request(OpenSearchUnreachable("did not answer within 30 s", slow=True)))
    assert (slow.error_type, "within 30 s" in slow.reason) == ("way_slow", True)


@pytest.mark.parametrize(("how", "cause"), [({}, None), ({"cut": True}, Cause.CUT), ({"slow": True}, Cause.SLOW)])
def test_request_without_an_answer_is_tried_again(how, cause):
    verdict = of_request(OpenSearchUnreachable("nobody there", **how))
    assert (verdict.kind, verdict.cause) == (Kind.TRANSIENT, cause)


def test_a_reason_that_quotes_a_nul_can_be_stored():
    assert of_item(400, "mapper_parsing_exception", "cannot parse [a\0b]").reason == "cannot parse [a\\u0000b]"
    refused = OpenSearchRefused("no", status=400, error_type="t", reason="a\0b")
    assert "\0" not in of_request(refused).reason


@pytest.mark.parametrize(
    ("kind", "cause", "over_limit", "becomes"),
    [
        (Kind.SPLIT, None, False, Kind.PERMANENT),
        (Kind.SPLIT, Cause.TOO_LARGE, False, Kind.PERMANENT),
        (Kind.SPLIT, Cause.FAULT, False, Kind.DOUBTFUL),
        (Kind.TRANSIENT, Cause.CUT, False, Kind.TRANSIENT),
        (Kind.TRANSIENT, Cause.CUT, True, Kind.DOUBTFUL),
        (Kind.TRANSIENT, Cause.OVERLOAD, True, Kind.TRANSIENT),
        (Kind.BLOCKED, None, True, Kind.BLOCKED),
    ],
)
def test_what_cannot_be_halved_any_more_is_the_documents_own(kind, cause, over_limit, becomes):
    assert alone(Verdict(kind, "t", "r", whole=True, cause=cause), 5_000_000, over_limit=over_limit).kind is becomes


def test_a_document_too_large_says_how_large_it_is():
    assert "5.2 MB" in alone(Verdict(Kind.SPLIT, "http_413", "r", cause=Cause.TOO_LARGE), 5_200_000).reason


def test_conflict_names_the_version_that_stands_there():
    reason = "[7]: version conflict, current version [1764000000000203] is higher than the one provided [12]"
    assert current_version(reason) == 1764000000000203
    assert current_version("[7]: something else") is None
