"""Webhooks on the wire: a receiver of this process, and the sender of a worker."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web
from standardwebhooks import Webhook

from app.audit import queries
from app.auth import service as auth_service
from app.imports.cancel.service import cancel
from app.kit.encryption import Vault
from app.kit.postgres.database import Database
from app.settings import Settings
from app.vocabulary.states import EventType
from app.webhooks import queries as rows
from app.webhooks import service as webhook_service
from app.webhooks.queries import WebhookMessage
from app.webhooks.rules import EndpointState, MessageState, Policy
from jobs.retention import prune
from jobs.webhooks.sender import WebhookSender
from jobs.worker import working
from tests.http.made_jobs import make_job
from tests.jobs.conftest import Sandbox, World, people
from tests.jobs.delivery.test_held_memory import no_body_left
from tests.stopwatch import stopwatch

EXAMPLE = Path(__file__).parents[3] / "examples" / "webhook_receiver.py"


class Receiver:
    """Keeps what it is told, and answers as it is bid."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, str], bytes]] = []
        self.answers: Callable[[str], Awaitable[web.Response]] = self.accept
        self.url = ""

    async def accept(self, _: str) -> web.Response:
        return web.Response(status=204)

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.calls.append((request.path, {k.lower(): v for k, v in request.headers.items()}, body))
        return await self.answers(request.path)

    def answer_with(self, *statuses: int, text: str = "", **headers: str) -> None:
        """One after the other, the last one for ever."""
        left = list(statuses)
        fields = {name.replace("_", "-"): value for name, value in headers.items()}

        async def next_answer(_: str) -> web.Response:
            status = left.pop(0) if len(left) > 1 else left[0]
            return web.Response(status=status, text=text or None, headers=fields)

        self.answers = next_answer

    def told(self, path: str = "/") -> list[dict[str, Any]]:
        return [msgspec.json.decode(body) for at, _, body in self.calls if at == path]


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", made.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    await runner.cleanup()


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return msgspec.structs.replace(
        settings, webhook_private="127.0.0.0/8", webhook_waits="0.1,0.2", webhook_timeout=30.0
    )


class Desk:
    """A tenant with endpoints."""

    def __init__(self, database: Database, settings: Settings, tenant_id: int) -> None:
        self.database, self.settings, self.tenant_id = database, settings, tenant_id
        self.vault = Vault(settings.secret_key)

    async def add(
        self, url: str, events: list[EventType] | None = None, policy: Policy = Policy.SHORT
    ) -> webhook_service.WebhookSecret:
        new = webhook_service.NewWebhookEndpoint(url=url, events=events, policy=policy)
        return await webhook_service.add(self.database, self.vault, self.settings, self.tenant_id, new, actor="tests")

    async def emit(self, count: int = 1, event: str = "job.finished") -> None:
        async with self.database.connection() as connection:
            for number in range(count):
                data = msgspec.json.encode({"number": number}).decode()
                await connection.execute("SELECT emit_event($1, $2, $3::text::jsonb)", self.tenant_id, event, data)

    async def messages(self, endpoint_id: int, state: MessageState | None = None) -> list[WebhookMessage]:
        async with self.database.connection() as connection:
            return await rows.list_messages(connection, self.tenant_id, endpoint_id, state=state, limit=10_000)

    async def settled(self, endpoint_id: int, count: int = 1) -> list[WebhookMessage]:
        async with asyncio.timeout(60):
            while True:
                found = await self.messages(endpoint_id)
                if len([m for m in found if m.finished_at]) >= count:
                    return found
                await asyncio.sleep(0.02)

    async def state(self, endpoint_id: int) -> tuple[EndpointState, str | None]:
        async with self.database.connection() as connection:
            found = await webhook_service.read(connection, self.tenant_id, endpoint_id)
        return found.state, found.detail


@pytest.fixture
async def desk(settings: Settings) -> AsyncIterator[Desk]:
    database = Database(settings, application_name="tests")
    async with database.connection() as connection:
        tenant_id = await auth_service.ensure_tenant(connection, "acme")
    yield Desk(database, settings, tenant_id)
    await database.close()


@asynccontextmanager
async def sending(
    desk: Desk, now: Callable[[], datetime] = lambda: datetime.now(UTC), **changes: Any
) -> AsyncIterator[WebhookSender]:
    """A sender at work."""
    sender = WebhookSender(
        desk.database,
        desk.vault,
        msgspec.structs.replace(desk.settings, **changes),
        monotonic=time.monotonic,
        random=random.random,
        now=now,
    )
    task = asyncio.create_task(sender.run())
    try:
        yield sender
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await sender.stop()


async def test_an_event_arrives_signed_as_standard_webhooks_says(desk: Desk, receiver: Receiver) -> None:
    made = await desk.add(receiver.url + "/hooks?key=1")
    began = time.monotonic()
    async with sending(desk):
        await desk.emit()
        (message,) = await desk.settled(made.endpoint_id)
    took = time.monotonic() - began
    ((path, headers, body),) = receiver.calls
    assert path == "/hooks"
    assert headers["content-type"] == "application/json"
    told = Webhook(made.secret).verify(body, headers)
    assert told["type"] == "job.finished"
    assert told["data"] == {"number": 0}
    assert headers["webhook-id"] == headers["x-event-id"] == str(message.event_id)
    assert message.state is MessageState.OK
    (attempt,) = message.attempts
    assert attempt.status == 204
    assert 0 <= attempt.milliseconds <= took * 1000 + 1


async def test_a_failure_is_tried_again_under_the_same_id(desk: Desk, receiver: Receiver) -> None:
    receiver.answer_with(500, 503, 200)
    made = await desk.add(receiver.url)
    async with sending(desk):
        await desk.emit()
        (message,) = await desk.settled(made.endpoint_id)
    assert message.state is MessageState.OK
    assert [a.status for a in message.attempts] == [500, 503, 200]
    ids = {headers["webhook-id"] for _, headers, _ in receiver.calls}
    assert ids == {str(message.event_id)}
    assert len({body for _, _, body in receiver.calls}) == 1
    for _, headers, body in receiver.calls:
        Webhook(made.secret).verify(body, headers)


async def test_what_never_arrives_is_dead_and_can_be_replayed(desk: Desk, receiver: Receiver) -> None:
    receiver.answer_with(500, text="oh\nno " + "x" * 5_000)
    made = await desk.add(receiver.url)
    async with sending(desk):
        await desk.emit()
        (dead,) = await desk.settled(made.endpoint_id)
        assert dead.state is MessageState.DEAD
        assert len(dead.attempts) == 3
        assert dead.attempts[0].detail.startswith("answered 500: oh no xxx")
        assert len(dead.attempts[0].detail) <= 300
        receiver.answer_with(200)
        state = MessageState.DEAD
        assert await webhook_service.replay_messages(desk.database, desk.tenant_id, made.endpoint_id, state) == 1
        (message,) = await desk.settled(made.endpoint_id)
    assert (message.state, message.event_id) == (MessageState.OK, dead.event_id)
    assert [a.status for a in message.attempts] == [500, 500, 500, 200]
    assert await webhook_service.replay_messages(desk.database, desk.tenant_id, made.endpoint_id, state) == 0


async def test_nothing_is_held_of_messages_that_nobody_took(desk: Desk) -> None:
    made = await desk.add("http://127.0.0.1:1/")
    async with sending(desk):
        with no_body_left():
            await desk.emit()
            (dead,) = await desk.settled(made.endpoint_id)
    assert dead.state is MessageState.DEAD
    assert len(dead.attempts) == 3


@pytest.mark.parametrize("status", [301, 400, 404, 422])
async def test_a_refusal_is_final(desk: Desk, receiver: Receiver, status: int) -> None:
    """A redirect too: it would carry events to an address that nobody checked."""
    receiver.answer_with(status, Location=receiver.url + "/elsewhere")
    made = await desk.add(receiver.url)
    async with sending(desk):
        await desk.emit()
        (message,) = await desk.settled(made.endpoint_id)
        await asyncio.sleep(0.3)
    assert message.state is MessageState.FAILED
    assert [path for path, _, _ in receiver.calls] == ["/"]


async def test_a_patient_endpoint_is_tried_again_whatever_it_answers(desk: Desk, receiver: Receiver) -> None:
    """A receiver that is being deployed, or changes its secret, loses nothing."""
    receiver.answer_with(404, 401, 301, 400, 200)
    made = await desk.add(receiver.url, policy=Policy.STANDARD)
    async with sending(desk, webhook_standard_waits="0.1,0.1,0.1,0.1,0.1"):
        await desk.emit()
        (message,) = await desk.settled(made.endpoint_id)
    assert message.state is MessageState.OK
    assert [a.status for a in message.attempts] == [404, 401, 301, 400, 200]


async def test_a_patient_endpoint_has_longer_to_answer(desk: Desk, receiver: Receiver) -> None:
    async def answer(_: str) -> web.Response:
        await asyncio.sleep(1)
        return web.Response()

    receiver.answers = answer
    quick = await desk.add(receiver.url + "/quick")
    patient = await desk.add(receiver.url + "/patient", policy=Policy.STANDARD)
    async with sending(desk, webhook_timeout=0.3, webhook_waits="", webhook_standard_timeout=30.0):
        await desk.emit()
        (late,) = await desk.settled(quick.endpoint_id)
        (arrived,) = await desk.settled(patient.endpoint_id)
    assert (late.state, late.attempts[0].detail) == (MessageState.DEAD, "no answer within 0.3 s")
    assert (arrived.state, len(arrived.attempts)) == (MessageState.OK, 1)


async def test_what_fails_for_five_days_is_disabled_and_the_others_are_told(desk: Desk, receiver: Receiver) -> None:
    shift = timedelta()

    async def answer(path: str) -> web.Response:
        return web.Response(status=500 if path == "/broken" else 204)

    receiver.answers = answer
    broken = await desk.add(receiver.url + "/broken", [EventType.JOB_FINISHED], Policy.STANDARD)
    other = await desk.add(receiver.url + "/other", [EventType.WEBHOOK_DISABLED])
    async with sending(desk, lambda: datetime.now(UTC) + shift, webhook_standard_waits="0.1,0.1,0.1"):
        await desk.emit()
        (message,) = await desk.settled(broken.endpoint_id)
        assert message.state is MessageState.DEAD
        state, _ = await desk.state(broken.endpoint_id)
        assert state is EndpointState.ACTIVE, "it has failed for a moment"
        async with desk.database.connection() as connection:
            began = (await webhook_service.read(connection, desk.tenant_id, broken.endpoint_id)).failing_since
        assert began is not None
        shift = timedelta(days=5)
        await desk.emit()
        found = await desk.settled(broken.endpoint_id, 2)
        assert [m.state for m in found] == [MessageState.FAILED, MessageState.DEAD]
        assert await desk.state(broken.endpoint_id) == (EndpointState.DISABLED, "no attempt has succeeded for 5 days")
        await desk.settled(other.endpoint_id)
    (told,) = receiver.told("/other")
    assert told["type"] == "webhook.disabled"
    assert told["data"]["endpoint_id"] == broken.endpoint_id
    assert datetime.fromisoformat(told["data"]["failing_since"]) == began
    async with desk.database.connection() as connection:
        entries = await queries.read(
            connection, desk.tenant_id, subject=f"webhook_endpoint:{broken.endpoint_id}", before=None, limit=9
        )
    assert "webhook.disable" in [entry.action for entry in entries]


async def test_one_answer_that_goes_well_ends_the_count(desk: Desk, receiver: Receiver) -> None:
    shift = timedelta()
    receiver.answer_with(500, 200, 500)
    made = await desk.add(receiver.url, policy=Policy.STANDARD)
    async with sending(desk, lambda: datetime.now(UTC) + shift, webhook_standard_waits="0.1,0.1,0.1"):
        await desk.emit()
        await desk.settled(made.endpoint_id)
        shift = timedelta(days=6)
        await desk.emit()
        await desk.settled(made.endpoint_id, 2)
        assert (await desk.state(made.endpoint_id))[0] is EndpointState.ACTIVE


async def test_gone_disables_the_endpoint(desk: Desk, receiver: Receiver) -> None:
    """What waits for it fails, what happens later is not written; a human enables it and replays."""
    made = await desk.add(receiver.url)
    await desk.emit(3)
    receiver.answer_with(410)
    async with sending(desk):
        found = await desk.settled(made.endpoint_id, 3)
        assert {m.state for m in found} == {MessageState.FAILED}
        assert await desk.state(made.endpoint_id) == (EndpointState.DISABLED, "answered 410")
        calls = len(receiver.calls)
        await desk.emit()
        assert len(await desk.messages(made.endpoint_id)) == 3
        receiver.answer_with(200)
        change = webhook_service.WebhookEndpointChange(state=EndpointState.ACTIVE)
        await webhook_service.change(
            desk.database, desk.settings, desk.tenant_id, made.endpoint_id, change, actor="tests"
        )
        assert await desk.state(made.endpoint_id) == (EndpointState.ACTIVE, None)
        await webhook_service.replay_messages(desk.database, desk.tenant_id, made.endpoint_id, MessageState.FAILED)
        found = await desk.settled(made.endpoint_id, 3)
    assert {m.state for m in found} == {MessageState.OK}
    assert len(receiver.calls) == calls + 3


async def test_retry_after_is_heeded(desk: Desk, receiver: Receiver) -> None:
    receiver.answer_with(429, 200, Retry_After="1")
    made = await desk.add(receiver.url)
    async with sending(desk):
        await desk.emit()
        (message,) = await desk.settled(made.endpoint_id)
    first, second = (a.at for a in message.attempts)
    assert (second - first).total_seconds() >= 1


async def test_a_slow_endpoint_holds_up_no_other(desk: Desk, receiver: Receiver) -> None:
    """Many that never answer share half of the places; one that answers is told of everything meanwhile."""

    found_out: set[str] = set()

    async def answer(path: str) -> web.Response:
        if path != "/quick":
            found_out.add(path)
            await asyncio.sleep(600)
        return web.Response()

    receiver.answers = answer
    for number in range(8):
        await desk.add(f"{receiver.url}/slow{number}")
    await desk.emit(10)
    quick = await desk.add(receiver.url + "/quick")
    async with sending(desk, webhook_concurrency=4, webhook_timeout=0.5):
        async with asyncio.timeout(60):
            while len(found_out) < 8:
                await asyncio.sleep(0.02)
        await desk.emit(50)
        async with stopwatch() as passed:
            await desk.settled(quick.endpoint_id, 50)
        assert passed.seconds < 4


async def test_a_message_of_a_killed_worker_is_sent_again_with_its_id(desk: Desk, receiver: Receiver) -> None:
    made = await desk.add(receiver.url)
    await desk.emit()
    async with desk.database.connection() as connection:
        lost = await rows.claim_message(connection, desk.tenant_id, made.endpoint_id, lease=600.0)
        assert lost is not None
        assert await rows.claim_message(connection, desk.tenant_id, made.endpoint_id, lease=600.0) is None
        await connection.execute("UPDATE webhook_messages SET next_attempt_at = next_attempt_at - interval '600 s'")
    async with sending(desk):
        (message,) = await desk.settled(made.endpoint_id)
    assert (message.state, message.attempt, message.event_id) == (MessageState.OK, 2, lost.event_id)


async def test_two_workers_share_without_sending_twice(desk: Desk, receiver: Receiver) -> None:
    made = await desk.add(receiver.url)
    await desk.emit(200)
    async with sending(desk), sending(desk):
        await desk.settled(made.endpoint_id, 200)
    ids = [headers["webhook-id"] for _, headers, _ in receiver.calls]
    assert len(ids) == len(set(ids)) == 200


async def test_both_secrets_sign_during_a_changeover(desk: Desk, receiver: Receiver) -> None:
    made = await desk.add(receiver.url)
    made_new = await webhook_service.rotate(
        desk.database, desk.vault, desk.tenant_id, made.endpoint_id, keep=60, actor="tests"
    )
    assert made_new.secret != made.secret
    assert made_new.previous_until is not None
    async with sending(desk):
        await desk.emit()
        await desk.settled(made.endpoint_id)
        ((_, headers, body),) = receiver.calls
        for secret in (made.secret, made_new.secret):
            Webhook(secret).verify(body, headers)
        await webhook_service.rotate(desk.database, desk.vault, desk.tenant_id, made.endpoint_id, keep=0, actor="tests")
        await desk.emit()
        await desk.settled(made.endpoint_id, 2)
    assert len(receiver.calls[1][1]["webhook-signature"].split()) == 1


async def test_private_addresses_are_not_called(
    desk: Desk, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by their address, and not by a name that began to stand for one after the endpoint was added."""
    by_address = await desk.add(receiver.url)
    port = int(receiver.url.rpartition(":")[2])
    by_name = await desk.add(f"https://rebinding.example:{port}/")
    look_up = socket.getaddrinfo

    def rebind(host: Any, *arguments: Any, **options: Any) -> Any:
        return look_up("127.0.0.1" if host == "rebinding.example" else host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", rebind)
    await desk.emit()
    async with sending(desk, webhook_private="", webhook_waits=""):
        for made in (by_address, by_name):
            (message,) = await desk.settled(made.endpoint_id)
            assert message.state is MessageState.DEAD
            assert message.attempts[0].detail == "the host's address is loopback, and is not called"
    assert receiver.calls == []


async def test_an_endpoint_hears_only_what_it_asked_for(desk: Desk, receiver: Receiver) -> None:
    made = await desk.add(receiver.url, [EventType.CIRCUIT_OPENED])
    await desk.emit(event="job.finished")
    await desk.emit(event="circuit.opened")
    async with sending(desk):
        test = await webhook_service.send_test(desk.database, desk.tenant_id, made.endpoint_id)
        await desk.settled(made.endpoint_id, 2)
    assert test.type == "webhook.test"
    assert sorted(told["type"] for told in receiver.told()) == ["circuit.opened", "webhook.test"]


async def test_old_messages_are_forgotten_and_strays_are_closed(desk: Desk, receiver: Receiver) -> None:
    made = await desk.add(receiver.url)
    await desk.emit(2)
    async with sending(desk):
        await desk.settled(made.endpoint_id, 2)
    await desk.emit()
    async with desk.database.connection() as connection:
        await connection.execute("UPDATE webhook_messages SET finished_at = finished_at - interval '31 days'")
        # As by a transaction that saw the endpoint when it was still there.
        await connection.execute("UPDATE webhook_endpoints SET state = 'disabled'")
    await prune(desk.database, desk.settings)
    (message,) = await desk.messages(made.endpoint_id)
    assert (message.state, message.attempts[0].detail) == (MessageState.FAILED, "the endpoint was disabled")


async def test_every_way_a_job_ends_is_told(world: World, desk: Desk, receiver: Receiver, sandbox: Sandbox) -> None:
    """Decided at once, and canceled: each once, with what became of it."""
    await desk.add(receiver.url, [EventType.JOB_FINISHED])
    only_bad = await world.push([{"id": "x", "email": "nobody"}])
    async with world.database.connection() as connection:
        canceled = await make_job(connection, state="running")
    await cancel(world.database, desk.tenant_id, canceled, actor="tests")
    async with working(desk.settings):
        async with asyncio.timeout(60):
            while len(receiver.calls) < 2:
                await asyncio.sleep(0.05)
    told = {event["data"]["job_id"]: event["data"] for event in receiver.told()}
    assert told[str(only_bad.job_id)] == {
        "job_id": str(only_bad.job_id),
        "kind": "import",
        "type": "contacts",
        "root_job_id": str(only_bad.job_id),
        "state": "completed_with_failures",
        "summary": {"total": 1, "succeeded": 0, "failed": 1, "retry": 0},
    }
    assert told[str(canceled)]["state"] == "canceled"
    assert len(receiver.calls) == 2


async def test_a_job_that_is_still_syncing_is_not_told(world: World, desk: Desk, receiver: Receiver) -> None:
    made = await desk.add(receiver.url)
    await world.push(people(3))
    assert await desk.messages(made.endpoint_id) == []


async def test_the_example_receiver_verifies_and_does_its_work_once(desk: Desk, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    made = await desk.add(f"http://127.0.0.1:{port}/")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(EXAMPLE),
        "--port",
        str(port),
        "--seen",
        str(tmp_path / "seen.sqlite"),
        env=os.environ | {"WEBHOOK_SECRET": f"whsec_AAAA {made.secret}"},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        await desk.emit()
        async with sending(desk, webhook_waits=",".join(["0.2"] * 30)):
            (message,) = await desk.settled(made.endpoint_id)
            assert message.state is MessageState.OK
            await webhook_service.replay_message(desk.database, desk.tenant_id, made.endpoint_id, message.message_id)
            (message,) = await desk.settled(made.endpoint_id)
            assert [a.status for a in message.attempts][-2:] == [204, 204]
            await webhook_service.rotate(
                desk.database, desk.vault, desk.tenant_id, made.endpoint_id, keep=0, actor="tests"
            )
            await desk.emit()
            forged, _ = await desk.settled(made.endpoint_id, 2)
            assert (forged.state, forged.attempts[-1].status) == (MessageState.FAILED, 401)
    finally:
        process.send_signal(signal.SIGTERM)
        out, _ = await process.communicate()
    assert out.decode().splitlines() == ['job.finished {"number": 0}']
