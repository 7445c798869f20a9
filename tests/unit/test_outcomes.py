"""Every answer that OpenSearch gives to a bulk, and what it means: BULK's table as a test."""

from __future__ import annotations

import pytest

from idxctl.core.errors import OpenSearchRefused, OpenSearchUnreachable
from idxctl.worker.outcomes import Kind, current_version, of_item, of_request

ITEMS = [
    (200, "", "", Kind.DONE),
    (201, "", "", Kind.DONE),
    (404, "", "", Kind.DONE),  # a delete that found nothing
    (409, "version_conflict_engine_exception", "", Kind.SUPERSEDED),
    (400, "mapper_parsing_exception", "", Kind.PERMANENT),
    (400, "strict_dynamic_mapping_exception", "", Kind.PERMANENT),
    (400, "illegal_argument_exception", "Document contains at least one immense term", Kind.PERMANENT),
    (400, "routing_missing_exception", "", Kind.BLOCKED),
    (400, "index_closed_exception", "", Kind.BLOCKED),
    (400, "illegal_argument_exception", "no write index is defined for alias [a]", Kind.BLOCKED),
    (404, "index_not_found_exception", "", Kind.GONE),
    (403, "cluster_block_exception", "index write (api)", Kind.BLOCKED),
    (429, "cluster_block_exception", "disk usage exceeded flood-stage watermark", Kind.BLOCKED),
    (429, "rejected_execution_exception", "", Kind.TRANSIENT),
    (429, "circuit_breaking_exception", "", Kind.TRANSIENT),
    (503, "unavailable_shards_exception", "", Kind.TRANSIENT),
    (503, "process_cluster_event_timeout_exception", "", Kind.TRANSIENT),
    (500, "node_closed_exception", "", Kind.TRANSIENT),
    (500, "translog_exception", "", Kind.DOUBTFUL),
    (418, "a_type_of_tomorrow", "", Kind.PERMANENT),
    (429, "a_type_of_tomorrow", "", Kind.TRANSIENT),
    (500, "a_type_of_tomorrow", "", Kind.DOUBTFUL),
]


@pytest.mark.parametrize(("status", "error_type", "reason", "kind"), ITEMS)
def test_item_is_sorted_by_type_and_status(status, error_type, reason, kind):
    assert of_item(status, error_type, reason).kind is kind


PRESSURE = "rejected execution of coordinating operation [coordinating_and_primary_bytes=0, replica_bytes=0, all_bytes=0, coordinating_operation_bytes={}, max_coordinating_and_primary_bytes=2097152]"

REQUESTS = [
    (400, "action_request_validation_exception", "id is too long", Kind.SPLIT),
    (400, "illegal_argument_exception", "Malformed action/metadata line", Kind.SPLIT),
    (401, "security_exception", "", Kind.BLOCKED),
    (403, "security_exception", "", Kind.BLOCKED),
    (403, "cluster_block_exception", "cluster read-only", Kind.BLOCKED),
    (404, "index_not_found_exception", "", Kind.GONE),
    (413, "", "", Kind.SPLIT),
    (429, "rejected_execution_exception", PRESSURE.format(1_000), Kind.TRANSIENT),
    (429, "rejected_execution_exception", PRESSURE.format(3_000_000), Kind.SPLIT),  # can never pass
    (429, "circuit_breaking_exception", "", Kind.TRANSIENT),
    (502, "", "", Kind.TRANSIENT),
    (503, "cluster_manager_not_discovered_exception", "", Kind.TRANSIENT),
    (504, "", "", Kind.TRANSIENT),
]


@pytest.mark.parametrize(("status", "error_type", "reason", "kind"), REQUESTS)
def test_whole_request_is_sorted_by_type_and_status(status, error_type, reason, kind):
    verdict = of_request(OpenSearchRefused("no", status=status, error_type=error_type, reason=reason))
    assert verdict.kind is kind
    assert verdict.whole


def test_request_without_an_answer_is_tried_again():
    assert of_request(OpenSearchUnreachable("nobody there")).kind is Kind.TRANSIENT


def test_conflict_names_the_version_that_stands_there():
    reason = "[7]: version conflict, current version [1764000000000203] is higher than the one provided [12]"
    assert current_version(reason) == 1764000000000203
    assert current_version("[7]: something else") is None
