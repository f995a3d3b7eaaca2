"""An answer adds up, says what is wrong in bounds, and is the same bytes for the same outcomes."""

from __future__ import annotations

import uuid
from collections import Counter
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from app.vocabulary import outcomes_wire
from app.vocabulary.outcomes_wire import SAMPLES, Cluster, FieldError, ItemOutcome, Summary
from app.vocabulary.states import OPEN_STATES, EffectState, ErrorCode, ItemStatus, Result

_JOB = uuid.UUID("0199aaaa-0000-7000-8000-000000000001")
_FAILED_CODES = [ErrorCode.INVALID_EMAIL, ErrorCode.UNKNOWN_FIELD, ErrorCode.VERSION_CONFLICT]
_RETRY_CODES = [ErrorCode.LOCK_TIMEOUT, ErrorCode.INTERNAL]


@st.composite
def _items(draw: st.DrawFn) -> list[ItemOutcome]:
    items = []
    for index in range(draw(st.integers(0, 40))):
        match draw(st.sampled_from(list(ItemStatus))):
            case ItemStatus.OK:
                version, result = draw(st.integers(1, 9)), draw(st.sampled_from(list(Result)))
                items.append(ItemOutcome(index, f"c{index}", ItemStatus.OK, result, version))
            case ItemStatus.FAILED:
                code = draw(st.sampled_from(_FAILED_CODES))
                record_id = draw(st.none() | st.just(f"c{index}"))
                items.append(outcomes_wire.failed(index, record_id, [FieldError(code, "/x", "no")]))
            case ItemStatus.RETRY:
                code = draw(st.sampled_from(_RETRY_CODES))
                items.append(outcomes_wire.retry(index, f"c{index}", code, draw(st.integers(-5, 90)), "later"))
    return items


def _compose(items: list[ItemOutcome], **options: Any) -> dict[str, Any]:
    summary = outcomes_wire.summarize(items)
    encoded = outcomes_wire.encode_items(items)
    body = outcomes_wire.compose(_JOB, summary, {"db": "ok"}, encoded, **({"dry_run": False} | options))
    decoded: dict[str, Any] = msgspec.json.decode(body)
    return decoded


@given(_items())
def test_the_summary_adds_up(items: list[ItemOutcome]) -> None:
    summary = outcomes_wire.summarize(items)
    assert summary.total == len(items) == summary.succeeded + summary.failed + summary.retry
    statuses = Counter(item.status for item in items)
    assert (summary.succeeded, summary.failed, summary.retry) == (
        statuses[ItemStatus.OK],
        statuses[ItemStatus.FAILED],
        statuses[ItemStatus.RETRY],
    )
    assert sum(outcomes_wire.count_results(items).values()) == summary.succeeded


@given(_items())
def test_clusters_count_all_and_show_a_few(items: list[ItemOutcome]) -> None:
    """A thousand items with one fault are one line with five examples, the first ones."""
    clusters = outcomes_wire.cluster(items)
    bad = [item for item in items if item.status is not ItemStatus.OK]
    assert sum(cluster.count for cluster in clusters.values()) == len(bad)
    for code, cluster in clusters.items():
        indexes = [item.index for item in bad if item.error_code == code]
        assert cluster == Cluster(len(indexes), indexes[:SAMPLES])


@given(_items())
def test_minimal_leaves_out_what_is_ok(items: list[ItemOutcome]) -> None:
    """And nothing else: order and every word of the rest stay."""
    whole = _compose(items)["items"]
    assert _compose(outcomes_wire.not_ok(items))["items"] == [item for item in whole if item["status"] != "ok"]


@given(_items())
def test_stored_outcomes_come_back(items: list[ItemOutcome]) -> None:
    encoded = outcomes_wire.encode_items(items)
    assert outcomes_wire.decode_items(encoded) == items
    assert outcomes_wire.encode_items(outcomes_wire.decode_items(encoded)) == encoded


@given(_items())
def test_a_client_always_knows_when_to_come_back(items: list[ItemOutcome]) -> None:
    """`retry` says at least one second, `failed` says 0 and why, `ok` says neither."""
    for item in _compose(items)["items"]:
        if item["status"] == "ok":
            assert {"result", "version"} <= set(item)
            assert not {"error_code", "errors", "retry_after_seconds"} & set(item)
        else:
            assert item["errors"][0]["code"] == item["error_code"]
            seconds = item["retry_after_seconds"]
            assert seconds >= 1 if item["status"] == "retry" else seconds == 0


def test_the_answer_of_the_contract() -> None:
    """Names, order and shape as published."""
    items = [
        ItemOutcome(0, "c1", ItemStatus.OK, Result.CREATED, 1),
        outcomes_wire.failed(1, "c2", [FieldError(ErrorCode.INVALID_EMAIL, "/email", "…")]),
        outcomes_wire.retry(2, "c3", ErrorCode.RATE_LIMIT, 60, "…"),
    ]
    effects = {"db": "ok", "hubspot": "pending"}
    body = outcomes_wire.compose(_JOB, Summary(3, 1, 1, 1), effects, outcomes_wire.encode_items(items), dry_run=False)
    links = f'"status_url":"/v1/jobs/{_JOB}","items_url":"/v1/jobs/{_JOB}/items",'
    assert body.decode().startswith(
        f'{{"job_id":"{_JOB}",{links}'
        '"summary":{"total":3,"succeeded":1,"failed":1,"retry":1},'
        '"effects":{"db":"ok","hubspot":"pending"},'
        '"items":[{"index":0,"id":"c1","status":"ok","result":"created","version":1},'
        '{"index":1,"id":"c2","status":"failed","error_code":"INVALID_EMAIL","retry_after_seconds":0,'
        '"errors":[{"code":"INVALID_EMAIL","pointer":"/email","detail":"…"}]},'
        '{"index":2,"id":"c3","status":"retry","error_code":"RATE_LIMIT","retry_after_seconds":60,'
    )


def test_a_dry_run_says_so() -> None:
    assert _compose([], dry_run=True)["dry_run"] is True
    assert "dry_run" not in _compose([])


def test_an_item_whose_id_could_not_be_read_has_null() -> None:
    (item,) = _compose([outcomes_wire.failed(0, None, [FieldError(ErrorCode.INVALID_FIELD, "", "no")])])["items"]
    assert item["id"] is None


@given(st.dictionaries(st.sampled_from(list(EffectState)), st.integers(0, 3)))
def test_one_word_for_a_destination(counts: dict[EffectState, int]) -> None:
    """Open before settled, bad before good; nothing at all was skipped."""
    word = outcomes_wire.overall(counts)
    present = {state for state, count in counts.items() if count}
    if not present:
        assert word is EffectState.SKIPPED
        return
    assert word in present
    if present & OPEN_STATES:
        assert word in OPEN_STATES
    elif present & {EffectState.FAILED, EffectState.DEAD}:
        assert word in {EffectState.FAILED, EffectState.DEAD}
    elif EffectState.OK in present:
        assert word is EffectState.OK
