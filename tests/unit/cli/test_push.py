"""The engine of `tranche push` against a server that keeps the contract: what arrives, how often, and when."""

from __future__ import annotations

import csv
import itertools
import json
import random
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from app.cli.client.api_client import ApiClient, Response
from app.cli.client.clock import Deadline
from app.cli.client.errors import CanceledError, RefusedError, UsageError
from app.cli.client.failed_file import check_target, write_failed
from app.cli.client.outcomes import Outcomes
from app.cli.client.progress import Display
from app.cli.client.push import PushOptions, push
from app.cli.client.source_file import FileOptions, open_file
from app.cli.client.summary import Ending, Report, as_document
from app.cli.push import _survey
from tests.types import CONTACTS
from tests.unit.cli.fake_server import KEY, FakeApi, FakeClock, fail, problem, wait


class Said(Display):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def say(self, text: str) -> None:
        self.texts.append(text)


class Pusher:
    """Pushes files of one temporary folder to one fake API."""

    def __init__(self, api: FakeApi, clock: FakeClock, url: str, folder: Path) -> None:
        self.api, self.clock, self.url, self.folder = api, clock, url, folder
        self.outcomes = Outcomes()
        self.display = Said()
        self.name = "in.csv"
        self.failed_rows = 0

    def write(self, content: bytes | str, name: str = "in.csv") -> None:
        self.name = name
        (self.folder / name).write_bytes(content.encode() if isinstance(content, str) else content)

    def write_rows(self, count: int, note: str = "") -> None:
        noise = random.Random(7)
        rows = [f"c{i},user{i}@b.example,{note or noise.randbytes(20).hex()}" for i in range(count)]
        self.write("\n".join(["id,email,first_name", *rows]) + "\n")

    @property
    def failed(self) -> Path:
        return self.folder / f"failed{Path(self.name).suffix}"

    async def push(
        self,
        *,
        timeout: float = 300,
        key: str = KEY,
        read: FileOptions | None = None,
        run: str = "run-1",
        failed_out: bool = False,
        **options: Any,
    ) -> Ending:
        self.outcomes = Outcomes()
        self.source = open_file(str(self.folder / self.name), read or FileOptions(), CONTACTS)
        limit = Deadline(self.clock, timeout)
        api = ApiClient(self.url, key, deadline=limit, notify=self.display.say, rng=random.Random(1))
        asked = PushOptions(run=run, fingerprint="mark", **options)
        async with api:
            self.ending = await push(api, self.source, asked, self.outcomes, self.display)
            if failed_out:
                check_target(str(self.failed), self.source)
                self.failed_rows = await write_failed(api, str(self.failed), self.source, self.outcomes)
        return self.ending

    @property
    def document(self) -> dict[str, Any]:
        return as_document(
            Report(
                file=self.name,
                run="run-1",
                resumed=False,
                dry_run=False,
                ending=self.ending,
                outcomes=self.outcomes,
                survey=_survey(self.source, self.outcomes, self.ending.items),
            )
        )


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=[1000, 0], ids=["207", "202"])
async def pusher(tmp_path: Path, clock: FakeClock, request: pytest.FixtureRequest) -> AsyncIterator[Pusher]:
    """One server answers at once, the other later."""
    api = FakeApi(now=clock.now, at_once=request.param)
    server = await api.start()
    yield Pusher(api, clock, str(server.make_url("")).rstrip("/"), tmp_path)
    await server.close()


async def test_a_file_is_one_request_and_every_row_arrives_once(pusher: Pusher) -> None:
    pusher.write_rows(900)
    pusher.api.polls_until_decided = 3
    ending = await pusher.push(read=FileOptions(mapping=("first_name=last_name",)))
    found = pusher.document
    assert ending.exit_code == 0
    assert (found["total"], found["succeeded"], found["results"]["created"]) == (900, 900, 900)
    (upload,) = pusher.api.uploads
    assert (upload.content_type, upload.query) == ("text/csv", [("map", "first_name:last_name")])
    assert "Content-Encoding" not in upload.headers
    assert upload.headers["User-Agent"].startswith("tranche/")
    assert upload.headers["X-Request-ID"]
    assert pusher.api.applied == [f"c{i}" for i in range(900)]


async def test_a_large_file_travels_compressed_unless_it_would_pass_for_a_bomb(pusher: Pusher) -> None:
    pusher.write_rows(30_000, "the same text again and again")
    await pusher.push()
    pusher.write(b"id,email\nc1,a@b.example\n" + b",\n" * 2_000_000)
    await pusher.push(run="run-2")
    first, second = pusher.api.uploads
    assert first.headers["Content-Encoding"] == "zstd"
    assert "Content-Encoding" not in second.headers
    assert first.size < 1_000_000
    assert len(pusher.api.applied) == 30_001


async def test_an_upload_that_broke_is_sent_again_under_the_same_key(pusher: Pusher) -> None:
    pusher.write_rows(20_000)
    pusher.api.cut = 2
    assert (await pusher.push()).exit_code == 0
    assert len({upload.key for upload in pusher.api.uploads}) == 1
    assert [upload.whole for upload in pusher.api.uploads] == [False, False, True]
    assert set(pusher.api.times.values()) == {1}


async def test_a_lost_answer_is_asked_for_and_not_sent_for(pusher: Pusher) -> None:
    pusher.write_rows(100)
    pusher.api.lose_answers = 1
    assert (await pusher.push()).exit_code == 0
    assert len(pusher.api.uploads) == 1
    assert pusher.outcomes.ok == {"created": 100}


async def test_the_remains_of_a_dead_upload_are_waited_for(pusher: Pusher) -> None:
    """The server cannot know at once that a client died: until it gives up, the key is taken."""
    pusher.write_rows(20_000)
    pusher.api.cut, pusher.api.receiving = 1, 5
    assert (await pusher.push()).exit_code == 0
    first, second = pusher.api.uploads
    assert second.at - first.at >= 10
    assert any("still open at the server" in text for text in pusher.display.texts)


async def test_the_same_run_finds_its_jobs_without_sending_or_waiting(pusher: Pusher) -> None:
    pusher.write_rows(50)
    pusher.api.decide = lambda item, seen: wait("LOCK_TIMEOUT", 40) if item["id"] == "c9" and seen == 1 else None
    await pusher.push()
    naps = len(pusher.clock.naps)
    assert (await pusher.push()).exit_code == 0
    assert len(pusher.api.uploads) == 2, "the repetition of the waiting row is found as well"
    assert len(pusher.clock.naps) == naps
    assert pusher.outcomes.ok == {"created": 50}
    assert (pusher.outcomes.retry, pusher.outcomes.replayed) == (0, 2)
    assert len(pusher.api.applied) == 50


async def test_another_run_of_the_same_file_is_a_new_import(pusher: Pusher) -> None:
    pusher.write_rows(5)
    await pusher.push(run="run-1")
    await pusher.push(run="run-2")
    assert pusher.outcomes.ok == {"unchanged": 5}
    assert pusher.outcomes.replayed == 0


async def test_only_waiting_rows_go_again_and_not_before_the_told_time(pusher: Pusher) -> None:
    pusher.write_rows(200)
    slow = {"c3": 60.0, "c77": 45.0}
    pusher.api.decide = lambda item, seen: (
        wait("RATE_LIMIT", slow[item["id"]])
        if item["id"] in slow and seen < 3
        else fail("INVALID_EMAIL", "no")
        if item["id"] == "c77"
        else None
    )
    read = FileOptions(mapping=("first_name=company",))
    ending = await pusher.push(read=read, params=[("on_duplicate", "last_wins")], failed_out=True)
    first, second, third = pusher.api.uploads
    assert second.ids == third.ids == ["c3", "c77"]
    assert second.query == [("on_duplicate", "last_wins")], "the columns have their names by now"
    assert min(second.at - first.at, third.at - second.at) >= 60
    assert len({upload.key for upload in pusher.api.uploads}) == 3
    assert pusher.api.contacts["c3"]["company"]
    assert ending.exit_code == 1
    assert pusher.document["failures"][0]["lines"] == [79]
    assert (pusher.outcomes.ok["created"], pusher.outcomes.failed, pusher.outcomes.retry) == (199, 1, 0)
    assert [row[3] for row in csv.reader(pusher.failed.open())] == ["id", "c77"]


async def test_json_items_that_wait_go_again_with_every_value(pusher: Pusher) -> None:
    item = {"id": "c1", "email": "a@b.example", "phone": None, "attributes": {"n": 1.5, "list": [1]}}
    pusher.write(json.dumps({"items": [item, {"id": "c2", "email": "b@b.example"}]}, indent=1), "in.json")
    pusher.api.decide = lambda item, seen: wait("LOCK_TIMEOUT", 2) if item["id"] == "c1" and seen == 1 else None
    assert (await pusher.push()).exit_code == 0
    assert pusher.api.uploads[1].content_type == "application/x-ndjson"
    assert pusher.api.contacts["c1"] == item


async def test_what_waits_is_downloaded_again_where_the_download_breaks(pusher: Pusher) -> None:
    pusher.write_rows(50)
    pusher.api.decide = lambda item, seen: wait("LOCK_TIMEOUT", 2) if seen == 1 else None
    pusher.api.broken_downloads = 2
    assert (await pusher.push()).exit_code == 0
    assert len(pusher.api.applied) == len(set(pusher.api.applied)) == 50


async def test_deadline_ends_with_what_is_left(pusher: Pusher) -> None:
    pusher.write_rows(20)
    pusher.api.decide = lambda item, seen: wait("RATE_LIMIT", 50) if item["id"] == "c4" else None
    ending = await pusher.push(timeout=120, failed_out=True)
    found = pusher.document
    assert (ending.exit_code, found["succeeded"], found["retry"], found["all_sent"]) == (3, 19, 1, True)
    assert (found["total"], found["failures"][0]["lines"]) == (20, [6])
    assert pusher.clock.now() - 1000 <= 120
    assert pusher.failed.read_text().splitlines()[1].startswith("RATE_LIMIT,,50,c4,")


async def test_it_does_not_wait_for_what_comes_too_late(pusher: Pusher) -> None:
    pusher.write_rows(1)
    pusher.api.decide = lambda item, seen: wait("RATE_LIMIT", 3600)
    assert (await pusher.push(timeout=300)).exit_code == 3
    assert pusher.clock.now() < 1010


async def test_a_job_that_nobody_works_at_says_so_when_deadline_ends(pusher: Pusher) -> None:
    pusher.write_rows(20)
    pusher.api.polls_until_decided, pusher.api.processed_at_most = 1_000, 0
    pusher.api.waiting = {"code": "NO_WORKER", "detail": "no worker has been seen yet"}
    ending = await pusher.push(timeout=20)
    assert ending.exit_code == 3
    assert "is still running: no worker has been seen yet" in ending.trouble


async def test_a_job_that_moves_is_followed_however_long_it_takes(pusher: Pusher) -> None:
    pusher.write_rows(100)
    pusher.api.polls_until_decided = 99
    assert (await pusher.push(timeout=5)).exit_code == 0
    assert pusher.clock.now() > 1_090


async def test_nobody_home_ends_with_deadline(tmp_path: Path, clock: FakeClock) -> None:
    pusher = Pusher(FakeApi(), clock, "http://127.0.0.1:1", tmp_path)
    pusher.write_rows(3)
    ending = await pusher.push(timeout=60)
    assert (ending.exit_code, pusher.document["all_sent"]) == (3, False)
    assert "cannot reach" in ending.trouble
    assert clock.now() <= 1060


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((400, "MALFORMED", "not so"), ["400", "not so", "r-1"]),
        ((403, "FORBIDDEN", "needs import"), ["403", "needs import"]),
        ((413, "REQUEST_TOO_LARGE", "too much of it"), ["413", "too much of it"]),
        ((415, "UNSUPPORTED", "no"), ["415"]),
        ((422, "IDEMPOTENCY_KEY_EXPIRED", "gone"), ["--fresh"]),
        ((400, "MALFORMED", "send it with charset=windows-1252"), ["--encoding windows-1252"]),
        ((301, "", "", "https://x.example/"), ["redirects", "https://x.example/"]),
    ],
)
@pytest.mark.parametrize("early", [True, False])
async def test_a_refused_request_ends_the_push_in_words(
    tmp_path: Path, answer: tuple[Any, ...], words: list[str], early: bool
) -> None:
    """Whether it comes after the body or in its middle, when no broken pipe may hide it."""
    api = FakeApi()
    server = await api.start()
    pusher = Pusher(api, FakeClock(), str(server.make_url("")).rstrip("/"), tmp_path)
    pusher.write_rows(60_000 if early else 3)
    status, code, detail, *location = answer
    headers = {"Location": location[0]} if location else {}
    (api.refusals if early else api.answers).append(problem(status, code, detail, **headers))
    with pytest.raises(RefusedError) as caught:
        await pusher.push()
    assert all(word in caught.value.detail for word in words), caught.value.detail
    assert caught.value.exit_code == 2
    assert api.applied == []
    await server.close()


@pytest.mark.parametrize("status", [429, 503, 409])
async def test_later_means_later_under_the_same_key(pusher: Pusher, status: int) -> None:
    pusher.write_rows(3)
    pusher.api.answers = [problem(status, "SOON", "", Retry_After="7")]
    assert (await pusher.push()).exit_code == 0
    first, second = pusher.api.uploads
    assert first.key == second.key
    assert second.at - first.at >= 7
    assert pusher.api.applied == ["c0", "c1", "c2"]


async def test_a_server_error_is_tried_again_with_jitter(pusher: Pusher) -> None:
    pusher.write_rows(3)
    pusher.api.answers = [problem(status, "BROKEN", "") for status in (500, 502, 500)]
    assert (await pusher.push()).exit_code == 0
    assert len({upload.key for upload in pusher.api.uploads}) == 1
    naps = pusher.clock.naps[:3]
    assert len(set(naps)) == 3
    assert all(nap <= 0.5 * 2**n for n, nap in enumerate(naps))


async def test_a_wrong_key_is_told_before_anything_is_sent_and_never_shown(pusher: Pusher) -> None:
    pusher.write_rows(3)
    with pytest.raises(RefusedError) as caught:
        await pusher.push(key="trn_secret_value")
    assert "401" in caught.value.detail
    assert "trn_secret_value" not in caught.value.detail
    assert pusher.api.arrived == 0


async def test_a_list_that_leaves_an_item_out_is_not_believed(pusher: Pusher) -> None:
    pusher.write_rows(3)
    summary = {"total": 3, "succeeded": 2, "failed": 1, "retry": 0}
    pusher.api.ending = {"state": "completed_with_failures", "summary": summary}
    with pytest.raises(RefusedError, match="has 1 failed items and lists 0"):
        await pusher.push()


async def test_it_waits_until_the_destination_has_the_rows(pusher: Pusher) -> None:
    pusher.write_rows(25)
    pusher.api.destination = "hubspot"
    pusher.api.polls_until_settled = 3
    assert (await pusher.push()).exit_code == 0
    found = pusher.document
    assert found["effects"] == {"hubspot": {"ok": 25}}
    assert {job["state"] for job in found["jobs"]} == {"completed"}
    assert any("If-None-Match" in poll for poll in pusher.api.polls)


async def test_no_wait_leaves_the_destination_alone(pusher: Pusher) -> None:
    pusher.write_rows(5)
    pusher.api.destination, pusher.api.polls_until_settled = "hubspot", 10_000
    assert (await pusher.push(await_effects=False)).exit_code == 0
    assert len(pusher.api.polls) == 1


async def test_a_destination_that_takes_too_long_is_still_running(pusher: Pusher) -> None:
    pusher.write_rows(5)
    pusher.api.destination = "hubspot"
    pusher.api.polls_until_settled = 10_000
    assert (await pusher.push(timeout=30)).exit_code == 3
    assert pusher.document["effects"] == {"hubspot": {"pending": 5}}
    assert pusher.clock.now() <= 1031


async def test_rows_a_destination_refused_are_failures_with_their_lines(pusher: Pusher) -> None:
    pusher.write_rows(25, "Ann")
    pusher.api.destination = "hubspot"
    pusher.api.lost = {
        "c13": {"state": "failed", "error_code": "DESTINATION_REJECTED", "detail": "no such country"},
        "c14": {"state": "dead", "error_code": "RETRIES_EXHAUSTED", "detail": "8 attempts"},
    }
    pusher.api.decide = lambda item, seen: fail("INVALID_EMAIL", "no") if item["id"] == "c20" else None
    assert (await pusher.push(failed_out=True)).exit_code == 1
    found = pusher.document
    assert found["failed"] == 1
    assert {(c["destination"], c["code"], *c["lines"]) for c in found["failures"]} == {
        ("hubspot", "DESTINATION_REJECTED", 15),
        ("hubspot", "RETRIES_EXHAUSTED", 16),
        (None, "INVALID_EMAIL", 22),
    }
    assert pusher.failed.read_text().splitlines()[1:] == [
        "DESTINATION_REJECTED,no such country,0,c13,user13@b.example,Ann",
        "RETRIES_EXHAUSTED,8 attempts,0,c14,user14@b.example,Ann",
        "INVALID_EMAIL,no,0,c20,user20@b.example,Ann",
    ]


async def test_dry_run_writes_nothing(pusher: Pusher) -> None:
    pusher.write_rows(5)
    params = [("on_duplicate", "last_wins"), ("dry_run", "true")]
    assert (await pusher.push(params=params, dry_run=True)).exit_code == 0
    assert pusher.api.uploads[0].query == params
    assert pusher.api.applied == []


async def test_a_job_that_failed_says_why(pusher: Pusher) -> None:
    pusher.write_rows(3)
    detail = "byte 0xE9 is no UTF-8; send it with charset=windows-1252"
    pusher.api.ending = {"state": "failed", "error": {"code": "MALFORMED_REQUEST", "detail": detail}}
    ending = await pusher.push()
    assert (ending.exit_code, ending.over) == (2, True)
    assert "MALFORMED_REQUEST" in ending.trouble
    assert "--encoding windows-1252" in ending.trouble
    pusher.api.ending = {"state": "failed", "error": {"code": "INTERNAL", "detail": "x"}}
    assert (await pusher.push()).exit_code == 1


async def test_a_job_that_was_canceled_tells_what_was_left(pusher: Pusher) -> None:
    pusher.write_rows(5)
    pusher.api.ending = {
        "state": "canceled",
        "summary": {"total": 2, "succeeded": 2, "failed": 0, "retry": 0},
        "results": {"created": 2},
        "progress": {"items": 5, "processed": 2, "not_processed": 3, "bytes_received": 1},
    }
    ending = await pusher.push()
    found = pusher.document
    assert (ending.exit_code, ending.over, found["complete"]) == (1, True, False)
    assert (found["succeeded"], found["not_processed"]) == (2, 3)
    assert "3 were not processed" in ending.trouble


async def test_a_cancel_in_the_middle_of_the_upload_ends_it(pusher: Pusher) -> None:
    pusher.write_rows(5)
    pusher.api.answers = [problem(409, "JOB_CANCELED", "")]
    with pytest.raises(CanceledError) as caught:
        await pusher.push()
    assert caught.value.exit_code == 1


async def test_a_file_that_changes_while_it_is_sent_is_not_imported(pusher: Pusher) -> None:
    pusher.write_rows(50_000)
    path = pusher.folder / pusher.name

    class Growing(Said):
        def show_upload(self, position: int, size: int) -> None:
            with path.open("a") as out:
                out.write("late,a@b.example,x\n")

    pusher.display = Growing()
    with pytest.raises(UsageError, match="has changed"):
        await pusher.push()
    assert not any(upload.whole for upload in pusher.api.uploads)
    assert pusher.api.applied == []


async def test_lines_are_not_guessed_where_the_file_is_another_one(pusher: Pusher) -> None:
    pusher.write_rows(5)
    pusher.api.decide = lambda item, seen: fail("INVALID_EMAIL") if item["id"] == "c2" else None
    progress = {"items": 6, "processed": 6, "not_processed": 0, "bytes_received": 1}
    pusher.api.ending = {"state": "completed_with_failures", "progress": progress}
    assert (await pusher.push()).exit_code == 1
    assert pusher.document["failures"][0]["lines"] == []


async def test_atomic_is_all_again_when_only_time_was_against_it(pusher: Pusher) -> None:
    pusher.write_rows(4)
    pusher.api.decide = lambda item, seen: (
        None if seen > 1 else wait("LOCK_TIMEOUT", 3) if item["id"] == "c1" else fail("ATOMIC_ABORTED")
    )
    assert (await pusher.push(params=[("atomic", "true")], atomic=True)).exit_code == 0
    first, second = pusher.api.uploads
    assert (len(first.pieces), len(second.pieces)) == (4, 4)
    assert first.key != second.key
    assert second.at - first.at >= 3
    assert pusher.outcomes.ok == {"created": 4}


async def test_atomic_is_not_tried_again_when_a_row_is_bad(pusher: Pusher) -> None:
    pusher.write_rows(4)
    pusher.api.decide = lambda item, seen: wait("LOCK_TIMEOUT", 3) if item["id"] == "c1" else fail("INVALID_EMAIL")
    assert (await pusher.push(params=[("atomic", "true")], atomic=True)).exit_code == 1
    assert len(pusher.api.uploads) == 1


async def test_failed_rows_come_back_as_they_were_and_can_be_pushed_again(pusher: Pusher) -> None:
    rows = [
        "Key;email;first_name;Formula",
        'c1;bad;"a ""quoted""; one";=1+1',
        "c2;user@b.example;fine;x",
        "c3;bad;short",
        'c4;bad;"two\nlines";-2',
    ]
    pusher.write("\n".join(rows) + "\n")
    read = FileOptions(mapping=("Key=id",))
    pusher.api.decide = lambda item, seen: fail("INVALID_EMAIL", "=not an address") if item["email"] == "bad" else None
    assert (await pusher.push(read=read, failed_out=True)).exit_code == 1
    text = pusher.failed.read_text()
    assert pusher.failed_rows == 3
    assert text.splitlines()[0] == "error_code;error_detail;retry_after_seconds;Key;email;first_name;Formula"
    assert "'=1+1" in text
    assert ";'=not an address;" in text

    pusher.api.decide = lambda item, seen: None
    pusher.write(text)
    ending = await pusher.push(read=read, run="run-2", failed_out=True)
    assert ending.exit_code == 1, "the short row was not fixed and must not slip through"
    assert pusher.api.contacts["c1"]["first_name"] == 'a "quoted"; one'
    assert pusher.api.contacts["c1"]["attributes"] == {"Formula": "=1+1"}
    assert pusher.api.contacts["c4"]["first_name"] == "two\nlines"
    (again,) = pusher.failed.read_text().splitlines()[1:]
    assert again == "INVALID_FIELD;line 3: the row has 6 cells, the header 7;0;c3;bad;short"

    pusher.write(pusher.failed.read_text().replace("c3;bad;short", "c3;user@b.example;long;y"))
    assert (await pusher.push(read=read, run="run-3", failed_out=True)).exit_code == 0
    assert pusher.api.contacts["c3"]["attributes"] == {"Formula": "y"}
    assert pusher.failed.read_bytes() == (
        b"error_code;error_detail;retry_after_seconds;Key;email;first_name;Formula\r\n"
    )


async def test_failed_rows_come_back_in_the_encoding_of_the_file(pusher: Pusher) -> None:
    pusher.write("id,email,first_name\nc1,bad,Zoë\n".encode("cp1252"))
    pusher.api.decide = lambda item, seen: fail("INVALID_EMAIL", "“no”")
    await pusher.push(read=FileOptions(encoding="windows-1252"), failed_out=True)
    assert pusher.failed.read_text(encoding="cp1252").splitlines()[1] == "INVALID_EMAIL,“no”,0,c1,bad,Zoë"


async def test_failed_ndjson_lines_come_back_pushable_with_reasons_beside_them(pusher: Pusher) -> None:
    lines = [
        '{"id": "c1", "email":"bad",  "n": 1.50, "x": null}',
        "",
        '{"id":"c2","email":"ok"}',
        "{broken",
        '{"id":"c3","email":"wait"}',
    ]
    pusher.write("\n".join(lines), "in.ndjson")
    pusher.api.destination = "hubspot"
    pusher.api.lost = {"c2": {"state": "dead", "error_code": "RETRIES_EXHAUSTED", "detail": "8 attempts"}}
    pusher.api.decide = lambda item, seen: (
        fail("INVALID_EMAIL", "no")
        if item["email"] == "bad"
        else wait("RATE_LIMIT", 3600)
        if item["email"] == "wait"
        else None
    )
    assert (await pusher.push(failed_out=True)).exit_code == 3
    assert pusher.failed.read_text().splitlines() == [lines[0], lines[3], lines[4]]
    reasons = [json.loads(line) for line in Path(f"{pusher.failed}.reasons.ndjson").read_text().splitlines()]
    assert [(r["line"], r["source_line"], r["id"], r["errors"][0]["error_code"]) for r in reasons] == [
        (1, 1, "c1", "INVALID_EMAIL"),
        (2, 4, None, "INVALID_FIELD"),
        (3, 5, "c3", "RATE_LIMIT"),
    ]
    assert reasons[0]["errors"][0]["error_detail"] == "/email: no"
    pusher.api.decide = lambda item, seen: None
    pusher.api.contacts.clear()
    assert (await pusher.push(run="run-2", failed_out=True)).exit_code == 1
    assert pusher.failed.read_text().splitlines() == [lines[2], lines[3]]


MESSY = (
    "\n\nid,email,first_name\n"
    "c0,bad@b.example,Ann\n"
    ",,\n"
    "\n"
    'c1,a@b.example,"two\nlines"\n'
    "c2,short\n"
    '"x"y,a@b.example,z\n'
    "   ,,\n"
    "c3,a@b.example,nul\0\n"
    "c4,bad@b.example,Bob,surplus\n"
    "c5,bad@b.example,Eve\r\n"
    "c6,a@b.example,ok\rc7,bad@b.example,Mac\n"
    'c8,a@b.example,"never closed\n'
    "c9,bad@b.example,last"
)


async def test_the_rows_of_a_messy_file_have_the_lines_that_the_server_names(pusher: Pusher) -> None:
    pusher.write(MESSY)
    pusher.api.decide = lambda item, seen: (
        fail("INVALID_EMAIL", "no") if item.get("email", "").startswith("bad") else None
    )
    assert (await pusher.push(failed_out=True)).exit_code == 1
    found = list(csv.reader(pusher.failed.open(newline="")))[1:]
    assert [row[3] for row in found if row[0] == "INVALID_EMAIL"] == ["c0", "c5", "c7", "c9"]
    clusters = {c["code"]: c for c in pusher.document["failures"]}
    assert clusters["INVALID_EMAIL"]["lines"] == [4, 14, 16, 18]
    lines = clusters["INVALID_FIELD"]["lines"]
    details = [row[1] for row in found if row[0] == "INVALID_FIELD"]
    assert lines == [9, 10, 13, 17]
    assert all(f"line {n}:" in text for n, text in zip(lines, details, strict=True))
    assert pusher.document["blank_rows"] == 1


async def test_ndjson_lines_are_counted_as_the_server_counts_them(pusher: Pusher) -> None:
    lines = [
        b'{"id":"c0","email":"bad"}',
        b" \t",
        b"",
        b"\x0c",
        b'{"id":"c1",\r"email":"bad"}\r',
        b"{broken",
        b'{"id":"c2","email":"\xff"}',
        "\u2028".encode(),
        b'{"id":"c3","email":"bad"}',
    ]
    pusher.write(b"\n".join(lines), "in.ndjson")
    pusher.api.decide = lambda item, seen: fail("INVALID_EMAIL", "no") if item["email"] == "bad" else None
    assert (await pusher.push(failed_out=True)).exit_code == 1
    reasons = [json.loads(line) for line in Path(f"{pusher.failed}.reasons.ndjson").read_text().splitlines()]
    assert [r["source_line"] for r in reasons if r["errors"][0]["error_code"] == "INVALID_EMAIL"] == [1, 5, 9]
    assert len(reasons) == 7
    assert b'"email":"\xff"' in pusher.failed.read_bytes()


@pytest.mark.parametrize("count", [3, 10_001])
@pytest.mark.parametrize("wrapped", [True, False])
async def test_json_documents_and_arrays_may_have_any_number_of_items(
    pusher: Pusher, count: int, wrapped: bool
) -> None:
    items = [{"id": f"c{i}", "email": "a@b.example"} for i in range(count)]
    pusher.write(json.dumps({"items": items} if wrapped else items, indent=1), "in.json")
    assert (await pusher.push()).exit_code == 0
    assert pusher.api.applied == [f"c{i}" for i in range(count)]


@pytest.mark.parametrize(
    ("codec", "encoding", "content_type"),
    [
        ("utf-8-sig", None, "text/csv"),
        ("utf-16", None, "text/csv"),
        ("utf-32", None, "text/csv"),
        ("utf-8-sig", "windows-1252", "text/csv"),
        ("cp1252", "windows-1252", "text/csv; charset=windows-1252"),
        ("utf-16-le", "utf-16-le", "text/csv; charset=utf-16le"),
        ("cp1250", "cp1250", "text/csv"),
        ("latin-1", "latin-1", "text/csv"),
    ],
)
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
async def test_every_encoding_and_delimiter_arrives(
    tmp_path: Path, codec: str, encoding: str | None, content_type: str, delimiter: str
) -> None:
    api = FakeApi()
    server = await api.start()
    pusher = Pusher(api, FakeClock(), str(server.make_url("")).rstrip("/"), tmp_path)
    pusher.write("id,email,first_name\nc1,a@b.example,Zoë\n".replace(",", delimiter).encode(codec))
    assert (await pusher.push(read=FileOptions(encoding=encoding, delimiter=delimiter))).exit_code == 0
    assert api.uploads[0].content_type == content_type
    assert api.contacts["c1"]["first_name"] == "Zoë"
    await server.close()


async def test_text_that_is_none_in_the_told_encoding_is_refused_here(pusher: Pusher) -> None:
    pusher.write(b"id,email\nc1,a@b.example\n" * 3000 + b"c1,\xff\xff@b.example\n")
    with pytest.raises(UsageError, match="--encoding"):
        await pusher.push(read=FileOptions(encoding="shift_jis"))
    assert pusher.api.applied == []


async def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    with (tmp_path / "in.csv").open("w") as out:
        out.write("id,email,first_name\n")
        out.writelines(f"c{i},user{i}@b.example,{'x' * 60}\n" for i in range(100_000))
    source = open_file(str(tmp_path / "in.csv"), FileOptions(), CONTACTS)
    assert source.body.size > 5_000_000
    tracemalloc.start()
    try:
        assert sum(map(len, source.body.pieces())) == source.body.size
        assert source.survey(range(5)).rows == 100_000
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_waits_do_not_shrink_and_samples_stay_few() -> None:
    from app.cli.client.outcomes import FailedItems, Note

    items = FailedItems("j", {"status": "failed"})
    for row in range(30_000):
        items.add(Note(row, None, "", "failed", "INVALID_FIELD", f"reason {row % 12_000}", row % 7))
    (cluster,) = items.clusters.values()
    assert cluster.total.count == 30_000
    assert cluster.total.rows == [0, 1, 2, 3, 4]
    assert items.retry_after == 6
    assert len(cluster.reasons) == 20
    assert len(cluster.by_detail) == 10_000
    assert all(a.count >= b.count for a, b in itertools.pairwise(cluster.reasons))
    assert sum(1 for _ in items.notes()) == 30_000


def test_a_conflict_passes_only_when_it_says_so() -> None:
    assert Response(409, {}, b"").is_final
    assert not Response(409, {"Retry-After": "1"}, b"").is_final
