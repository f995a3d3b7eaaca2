"""The engine of `tranche push` against a server that keeps the contract: what arrives, how often, and when."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from app.cli.client.errors import RefusedError
from app.cli.client.failed_file import check_target, write_failed
from app.cli.client.progress import Silence
from app.cli.client.push import PushOptions, push
from app.cli.client.reader import ReadOptions, open_source
from app.cli.client.results import Results
from app.cli.client.summary import Outcome, as_document
from app.cli.client.uploader import SendOptions
from tests.unit.cli_server import KEY, FakeApi, FakeClock, fail, problem, wait


class Said(Silence):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def say(self, text: str) -> None:
        self.texts.append(text)


class Pusher:
    """Pushes files of one temporary folder to one fake API."""

    def __init__(self, api: FakeApi, clock: FakeClock, url: str, folder: Path) -> None:
        self.api, self.clock, self.url, self.folder = api, clock, url, folder
        self.results = Results()
        self.display = Said()
        self.name = "in.csv"

    def write(self, count: int, ids: Callable[[int], str] = lambda i: f"c{i}") -> Path:
        lines = [f"{ids(i)},user{i}@b.example,Name {i}" for i in range(count)]
        path = self.folder / self.name
        path.write_text("\n".join(["id,email,first_name", *lines]) + "\n")
        return path

    async def push(
        self, *, batch_size: int = 10, patience: float = 300, key: str = KEY, run: str = "run-1", **send: Any
    ) -> Outcome:
        self.results = Results()
        self.source = open_source(str(self.folder / self.name), ReadOptions())
        options = PushOptions(
            url=self.url, key=key, batch_size=batch_size, patience=patience, send=SendOptions(run=run, **send)
        )
        return await push(
            self.source, options, self.results, self.display, clock=self.clock, rng=random.Random(1)
        )

    def document(self, outcome: Outcome) -> dict[str, Any]:
        return as_document(outcome, self.results)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def pusher(tmp_path: Path, clock: FakeClock) -> AsyncIterator[Pusher]:
    api = FakeApi(now=clock.now)
    server = await api.start()
    yield Pusher(api, clock, str(server.make_url("")).rstrip("/"), tmp_path)
    await server.close()


async def eventually(condition: Callable[[], bool]) -> None:
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come to pass")


async def test_every_row_arrives_once_in_batches(pusher: Pusher) -> None:
    pusher.write(25)
    outcome = await pusher.push()
    told = pusher.document(outcome)
    assert outcome.exit_code == 0
    assert (told["total"], told["succeeded"], told["results"]["created"]) == (25, 25, 25)
    assert sorted(len(seen.items) for seen in pusher.api.seen) == [5, 10, 10]
    assert sorted(pusher.api.applied) == sorted(f"c{i}" for i in range(25))
    assert all(seen.agent.startswith("tranche/") and seen.request_id for seen in pusher.api.seen)


async def test_no_more_requests_fly_than_allowed(pusher: Pusher) -> None:
    pusher.write(100)
    pusher.api.hold = asyncio.Event()
    task = asyncio.create_task(pusher.push(concurrency=3))
    await eventually(lambda: pusher.api.flying == 3)
    pusher.api.hold.set()
    assert (await task).exit_code == 0
    assert pusher.api.most_flying == 3


async def test_a_run_that_was_killed_repeats_the_same_keys_and_doubles_nothing(pusher: Pusher) -> None:
    pusher.write(60)
    pusher.api.hold = asyncio.Event()
    task = asyncio.create_task(pusher.push())
    await eventually(lambda: pusher.api.flying == 4)
    pusher.api.hold.set()
    await eventually(lambda: len(pusher.api.stored) >= 2)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    before = {seen.key: seen.body for seen in pusher.api.seen}
    outcome = await pusher.push()
    again = {seen.key: seen.body for seen in pusher.api.seen}
    assert len(again) == 6
    assert before.items() <= again.items()
    assert outcome.exit_code == 0
    assert pusher.results.replayed >= 2
    assert pusher.results.ok["created"] == 60
    assert len(pusher.api.applied) == len(set(pusher.api.applied)) == 60


async def test_another_run_of_the_same_file_is_a_new_import(pusher: Pusher) -> None:
    pusher.write(5)
    await pusher.push(run="run-1")
    await pusher.push(run="run-2")
    assert pusher.results.ok == {"unchanged": 5}
    assert pusher.results.replayed == 0


async def test_equal_batches_of_one_file_are_told_apart(pusher: Pusher) -> None:
    """Two batches of the same bytes are two imports, or the second would be told the first one's answer."""
    (pusher.folder / pusher.name).write_text("id,email\n" + "c,a@b.example\n" * 4)
    await pusher.push(batch_size=2)
    assert len({seen.key for seen in pusher.api.seen}) == 2


async def test_only_retry_rows_go_again_and_not_before_the_told_time(pusher: Pusher) -> None:
    pusher.write(10)
    slow = {"c3": 60.0, "c7": 45.0}
    pusher.api.decide = lambda item, seen: (
        wait("RATE_LIMIT", slow[item["id"]]) if item["id"] in slow and seen < 3 else None
    )
    outcome = await pusher.push()
    assert outcome.exit_code == 0
    assert pusher.results.ok["created"] == 10
    assert pusher.results.retry == 0
    first, *later = pusher.api.seen
    assert {item["id"] for seen in later for item in seen.items} == {"c3", "c7"}
    for key, seconds in slow.items():
        times = [seen.at for seen in [first, *later] if any(item["id"] == key for item in seen.items)]
        assert len(times) == 3
        assert all(b - a >= seconds for a, b in itertools.pairwise(times))
    assert len({seen.key for seen in pusher.api.seen}) == len(pusher.api.seen)


async def test_retries_of_a_killed_run_keep_their_keys_too(pusher: Pusher) -> None:
    pusher.write(20)
    pusher.api.decide = lambda item, seen: (
        wait("LOCK_TIMEOUT", 5) if item["id"] in ("c1", "c12") and seen == 1 else None
    )
    await pusher.push()
    keys = {seen.key for seen in pusher.api.seen}
    await pusher.push()
    assert {seen.key for seen in pusher.api.seen} == keys
    assert len(pusher.api.applied) == 20


async def test_rows_with_one_id_keep_the_order_of_the_file(pusher: Pusher) -> None:
    """The first version of a contact has to wait; its later version must not overtake it."""
    pusher.write(40, ids=lambda i: "same" if i in (0, 15, 39) else f"c{i}")
    pusher.api.decide = lambda item, seen: (
        wait("LOCK_TIMEOUT", 9) if item["id"] == "same" and seen == 1 else None
    )
    outcome = await pusher.push()
    assert outcome.exit_code == 0
    assert pusher.api.applied.count("same") == 3
    assert pusher.api.contacts["same"]["first_name"] == "Name 39"


async def test_patience_ends_and_what_is_left_is_told(pusher: Pusher) -> None:
    pusher.write(10)
    pusher.api.decide = lambda item, seen: wait("RATE_LIMIT", 50) if item["id"] == "c4" else None
    outcome = await pusher.push(patience=120)
    told = pusher.document(outcome)
    assert outcome.exit_code == 3
    assert (told["succeeded"], told["retry"], told["failed"], told["total"]) == (9, 1, 0, 10)
    assert told["failures"][0]["lines"] == [6]
    assert told["all_sent"] is True
    assert pusher.clock.now() - 1000 <= 120


async def test_it_does_not_wait_for_what_comes_too_late(pusher: Pusher) -> None:
    pusher.write(1)
    pusher.api.decide = lambda item, seen: wait("RATE_LIMIT", 3600)
    outcome = await pusher.push(patience=300)
    assert outcome.exit_code == 3
    assert pusher.clock.now() < 1010


@pytest.mark.parametrize(
    "answers",
    [
        [problem(429, "RATE_LIMITED", "", Retry_After="7")],
        [problem(503, "UNAVAILABLE", "", Retry_After="7")],
        [problem(409, "IDEMPOTENCY_IN_PROGRESS", "", Retry_After="7")],
    ],
)
async def test_later_means_later_under_the_same_key(pusher: Pusher, answers: list[Any]) -> None:
    pusher.write(3)
    pusher.api.answers = answers
    outcome = await pusher.push()
    assert outcome.exit_code == 0
    first, second = pusher.api.seen
    assert first.key == second.key
    assert second.at - first.at >= 7
    assert pusher.api.applied == ["c0", "c1", "c2"]


async def test_a_server_error_is_tried_again_with_jitter(pusher: Pusher) -> None:
    pusher.write(3)
    pusher.api.answers = [
        problem(500, "INTERNAL", ""),
        problem(502, "BAD_GATEWAY", ""),
        problem(500, "INTERNAL", ""),
    ]
    assert (await pusher.push()).exit_code == 0
    assert len({seen.key for seen in pusher.api.seen}) == 1
    assert len(set(pusher.clock.naps)) == 3
    assert all(nap <= 0.5 * 2**n for n, nap in enumerate(pusher.clock.naps))


async def test_nobody_home_ends_with_patience(tmp_path: Path, clock: FakeClock) -> None:
    pusher = Pusher(FakeApi(), clock, "http://127.0.0.1:1", tmp_path)
    pusher.write(3)
    outcome = await pusher.push(patience=60)
    assert outcome.exit_code == 3
    assert "cannot reach" in outcome.trouble
    assert outcome.all_sent is False
    assert clock.now() <= 1060


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (problem(400, "MALFORMED", "not so"), ["400", "not so", "r-1"]),
        (problem(403, "FORBIDDEN", "needs import"), ["403", "needs import"]),
        (problem(415, "UNSUPPORTED", "no"), ["415"]),
        (problem(422, "IDEMPOTENCY_KEY_EXPIRED", "gone"), ["--fresh"]),
        (problem(301, "", "", Location="https://x.example/"), ["redirects", "https://x.example/"]),
    ],
)
async def test_a_refused_request_ends_the_push_in_words(
    pusher: Pusher, answer: Any, words: list[str]
) -> None:
    pusher.write(3)
    pusher.api.answers = [answer]
    with pytest.raises(RefusedError) as caught:
        await pusher.push()
    assert all(word in caught.value.detail for word in words), caught.value.detail
    assert caught.value.exit_code == 2


async def test_a_wrong_key_is_told_and_never_shown(pusher: Pusher) -> None:
    pusher.write(3)
    with pytest.raises(RefusedError) as caught:
        await pusher.push(key="trn_secret_value")
    assert "401" in caught.value.detail
    assert "trn_secret_value" not in caught.value.detail


async def test_batches_that_are_too_large_are_halved(pusher: Pusher) -> None:
    pusher.write(20)
    pusher.api.max_items = 3
    outcome = await pusher.push()
    assert outcome.exit_code == 0
    assert sorted(pusher.api.applied) == sorted(f"c{i}" for i in range(20))
    assert pusher.results.ok["created"] == 20


async def test_one_row_that_is_too_large_fails_alone(pusher: Pusher) -> None:
    pusher.write(2)
    pusher.api.max_items = 0
    outcome = await pusher.push()
    assert outcome.exit_code == 1
    assert pusher.document(outcome)["failures"][0]["code"] == "ITEM_TOO_LARGE"


async def test_an_answer_that_leaves_a_row_out_is_not_believed(pusher: Pusher) -> None:
    from aiohttp import web

    pusher.write(2)
    pusher.api.answers = [web.json_response({"items": [{"index": 0, "status": "ok"}]}, status=207)]
    with pytest.raises(RefusedError, match="1 outcomes for 2 items"):
        await pusher.push()


async def test_a_deferred_import_is_followed_to_its_outcomes(pusher: Pusher) -> None:
    pusher.write(7)
    pusher.api.respond_async = True
    pusher.api.decide = lambda item, seen: fail("INVALID_EMAIL", "no") if item["id"] == "c5" else None
    outcome = await pusher.push()
    told = pusher.document(outcome)
    assert outcome.exit_code == 1
    assert (told["succeeded"], told["failed"]) == (6, 1)
    assert told["failures"][0]["lines"] == [7]


async def test_it_waits_until_the_destination_has_the_rows(pusher: Pusher) -> None:
    pusher.write(25)
    pusher.api.destination = "hubspot"
    pusher.api.polls_until_settled = 3
    outcome = await pusher.push()
    told = pusher.document(outcome)
    assert outcome.exit_code == 0
    assert told["effects"] == {"hubspot": {"ok": 25}}
    assert {job["state"] for job in told["jobs"]} == {"completed"}
    assert any("If-None-Match" in poll for poll in pusher.api.polls)


async def test_no_wait_leaves_the_destination_alone(pusher: Pusher) -> None:
    pusher.write(5)
    pusher.api.destination = "hubspot"
    assert (await pusher.push(await_effects=False)).exit_code == 0
    assert pusher.api.polls == []


async def test_nothing_to_sync_is_not_waited_for(pusher: Pusher) -> None:
    pusher.write(5)
    pusher.api.destination = "hubspot"
    await pusher.push()
    pusher.api.polls.clear()
    await pusher.push(run="run-2")
    assert pusher.results.ok == {"unchanged": 5}
    assert pusher.api.polls == []


async def test_a_destination_that_takes_too_long_is_still_running(pusher: Pusher) -> None:
    pusher.write(5)
    pusher.api.destination = "hubspot"
    pusher.api.polls_until_settled = 10_000
    outcome = await pusher.push(patience=30)
    assert outcome.exit_code == 3
    assert pusher.document(outcome)["effects"] == {"hubspot": {"pending": 5}}
    assert pusher.clock.now() <= 1031


async def test_rows_a_destination_refused_are_failures_with_their_lines(pusher: Pusher) -> None:
    pusher.write(25)
    pusher.api.destination = "hubspot"
    pusher.api.lost = {
        "c13": {"state": "failed", "error_code": "DESTINATION_REJECTED", "detail": "no such country"},
        "c14": {"state": "dead", "error_code": "RETRIES_EXHAUSTED", "detail": "8 attempts"},
    }
    outcome = await pusher.push()
    told = pusher.document(outcome)
    assert outcome.exit_code == 1
    assert told["failed"] == 0
    assert {(c["destination"], c["code"], *c["lines"]) for c in told["failures"]} == {
        ("hubspot", "DESTINATION_REJECTED", 15),
        ("hubspot", "RETRIES_EXHAUSTED", 16),
    }
    write_failed(str(pusher.folder / "failed.csv"), pusher.source, pusher.results)
    lines = (pusher.folder / "failed.csv").read_text().splitlines()
    assert lines[1] == "DESTINATION_REJECTED,hubspot: no such country,0,c13,user13@b.example,Name 13"


async def test_consistency_is_asked_for_with_every_batch(pusher: Pusher) -> None:
    pusher.write(2)
    await pusher.push(consistency="all_destinations")
    assert pusher.api.seen[0].query == {"consistency": "all_destinations"}


async def test_dry_run_writes_nothing(pusher: Pusher) -> None:
    pusher.write(5)
    outcome = await pusher.push(dry_run=True, on_duplicate="last_wins")
    assert outcome.exit_code == 0
    assert pusher.api.seen[0].query == {"dry_run": "true", "on_duplicate": "last_wins"}
    assert pusher.api.applied == []


async def failed_file(pusher: Pusher) -> tuple[Outcome, Path]:
    target = pusher.folder / "failed.csv"
    outcome = await pusher.push()
    check_target(str(target), pusher.source)
    write_failed(str(target), pusher.source, pusher.results)
    return outcome, target


async def test_failed_rows_come_back_as_they_were_and_can_be_pushed_again(pusher: Pusher) -> None:
    rows = [
        "id;email;first_name;Formula",
        'c1;bad;"a ""quoted""; one";=1+1',
        "c2;user@b.example;fine;x",
        "c3;bad;short",
        'c4;bad;"two\nlines";-2',
    ]
    (pusher.folder / pusher.name).write_text("\n".join(rows) + "\n")
    pusher.api.decide = lambda item, seen: (
        fail("INVALID_EMAIL", "=not an address") if item["email"] == "bad" else None
    )
    outcome, target = await failed_file(pusher)
    assert outcome.exit_code == 1
    text = target.read_text()
    assert "c2" not in text
    assert text.splitlines()[0] == "error_code;error_detail;retry_after_seconds;id;email;first_name;Formula"
    assert "=1+1" in text
    assert ";/email: =not an address;" in text

    pusher.api.decide = lambda item, seen: None
    target.rename(pusher.folder / pusher.name)
    outcome, target = await failed_file(pusher)
    assert outcome.exit_code == 1, "the short row was not fixed and must not slip through"
    assert pusher.api.contacts["c1"]["first_name"] == 'a "quoted"; one'
    assert pusher.api.contacts["c1"]["attributes"] == {"Formula": "=1+1"}
    assert pusher.api.contacts["c4"]["first_name"] == "two\nlines"
    assert target.read_text().splitlines()[1:] == [
        "INVALID_FIELD;the row has 6 cells, the header 7;0;c3;bad;short"
    ]

    fixed = target.read_text().replace("c3;bad;short", "c3;user@b.example;long;y")
    (pusher.folder / pusher.name).write_text(fixed)
    outcome, target = await failed_file(pusher)
    assert outcome.exit_code == 0
    assert pusher.api.contacts["c3"]["attributes"] == {"Formula": "y"}
    assert (
        target.read_bytes() == b"error_code;error_detail;retry_after_seconds;id;email;first_name;Formula\r\n"
    )


async def test_our_words_never_become_a_formula(pusher: Pusher) -> None:
    from app.cli.client.failed_file import neutralize

    for begin in "=+-@\t\r":
        assert neutralize(begin + "1").startswith("'")
    assert neutralize("plain") == "plain"


async def test_undecodable_and_unparsable_rows_come_back_byte_for_byte(pusher: Pusher) -> None:
    (pusher.folder / pusher.name).write_bytes(b'id,email\nc1,caf\xe9\nc2,"x"y\nc3,ok\n')
    outcome, target = await failed_file(pusher)
    assert outcome.exit_code == 1
    _, first, second = target.read_bytes().splitlines()
    assert first.endswith(b",0,c1,caf\xe9")
    assert second.endswith(b',0,c2,"x"y')


async def test_failed_ndjson_lines_come_back_pushable_with_reasons_beside_them(pusher: Pusher) -> None:
    pusher.name = "in.ndjson"
    lines = ['{"id": "c1", "email":"bad"}', '{"id":"c2","email":"ok"}', "{broken"]
    (pusher.folder / pusher.name).write_text("\n".join(lines))
    pusher.api.decide = lambda item, seen: fail("INVALID_EMAIL", "no") if item["email"] == "bad" else None
    outcome = await pusher.push()
    target = pusher.folder / "failed.ndjson"
    assert write_failed(str(target), pusher.source, pusher.results) == 2
    assert outcome.exit_code == 1
    assert target.read_text().splitlines() == [lines[0], lines[2]]
    reasons = [
        json.loads(line) for line in (pusher.folder / "failed.ndjson.reasons.ndjson").read_text().splitlines()
    ]
    assert [(r["line"], r["source_line"], r["errors"][0]["error_code"]) for r in reasons] == [
        (1, 1, "INVALID_EMAIL"),
        (2, 3, "INVALID_FIELD"),
    ]


async def test_many_rows_that_wait_do_not_pile_up(pusher: Pusher) -> None:
    """A server that lets a little through at a time gets the file at its own pace."""
    pusher.write(400)
    pusher.api.decide = lambda item, seen: wait("RATE_LIMIT", 1) if seen == 1 else None
    outcome = await pusher.push()
    assert outcome.exit_code == 0
    assert len(pusher.api.applied) == 400
    waiting, most = set[str](), 0
    for seen in pusher.api.seen:
        for item in seen.items:
            waiting ^= {item["id"]}
        most = max(most, len(waiting))
    assert most <= 130
