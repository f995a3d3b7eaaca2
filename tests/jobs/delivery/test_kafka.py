"""Contacts on their whole way into a topic of Kafka."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from app.destinations import service
from app.destinations.credentials import BasicCredentials
from app.destinations.testing.rules import Verdict
from app.errors import Invalid
from app.kit.encryption import Vault
from app.resource_types.catalog import Catalog
from app.syncs import creation
from app.syncs.creation import SyncRequest
from jobs.worker import working
from tests.conftest import LOOPBACK
from tests.contract.kafka import OPTIONS, USER, KafkaCase, headers_of, open_kafka
from tests.contract.kafka_proxy import METADATA
from tests.jobs.conftest import World, people
from tests.jobs.delivery.test_destination_tester import run
from tests.jobs.sagas.test_undo import ask


@pytest.fixture
async def kafka() -> AsyncIterator[KafkaCase]:
    async with open_kafka("choose-one") as case:
        yield case


async def add(world: World, kafka: KafkaCase, **options: Any) -> None:
    """In place of the destination that every world has."""
    new = service.NewDestination(
        name="events",
        kind="kafka",
        base_url=kafka.url,
        credentials=BasicCredentials(username=USER, password="choose-one"),
        options=OPTIONS | options,
    )
    async with world.database.connection() as connection:
        await service.set_destination_state(connection, world.tenant_id, "hubspot", "removed")
        await service.add_destination(
            connection, Vault(world.settings.secret_key), world.tenant_id, new, private=LOOPBACK
        )


async def test_a_batch_arrives_once_although_answers_are_lost(world: World, kafka: KafkaCase) -> None:
    await add(world, kafka, batch_size=20)
    world.settings = msgspec.structs.replace(world.settings, chunk_size=50)
    await kafka.faults(accept_then_drop={"times": 2}, drop_before={"times": 1})
    async with working(world.settings):
        answer = await world.push(people(120, last_name="Łovelace", attributes={"plan": "gold", "seats": 3}))
        assert await world.finished(answer.job_id) == "completed"
    messages = await kafka.messages()
    assert sorted(m.key().decode() for m in messages) == [f"c{i:05}" for i in range(120)], "each of them once"
    for message in messages:
        document = msgspec.json.decode(message.value())
        assert document["attributes"] == {"plan": "gold", "seats": 3}
        assert headers_of(message).keys() >= {"x-request-id", "x-event-id", "traceparent"}
        assert headers_of(message)["version"] == str(document["version"]) == "1"


async def test_a_doubt_that_stays_is_sent_again_with_the_same_event(world: World, kafka: KafkaCase) -> None:
    await add(world, kafka)
    world.settings = msgspec.structs.replace(world.settings, reconcile_grace=0.2)
    await kafka.faults(accept_then_drop={"times": 3})
    async with working(world.settings):
        answer = await world.push(people(5))
        assert await world.finished(answer.job_id) == "completed"
    messages = await kafka.messages()
    same = {(m.key(), m.value(), headers_of(m)["version"], headers_of(m)["x-event-id"]) for m in messages}
    assert (len(messages), len(same)) == (10, 5), "twice, and a reader by key, version or event sees no difference"


async def test_whoever_counts_messages_decides_about_doubts(world: World, kafka: KafkaCase) -> None:
    await add(world, kafka, repeatable=False)
    await kafka.faults(accept_then_drop={"times": 3})
    async with working(world.settings):
        answer = await world.push(people(2))
        assert await world.finished(answer.job_id) == "completed_with_failures"
    assert len(await kafka.messages()) == 2
    letters = await world.rows("SELECT error_code, error_detail FROM dead_letters")
    assert {letter["error_code"] for letter in letters} == {"OUTCOME_UNKNOWN"}


async def test_a_message_that_is_refused_is_a_dead_letter_in_the_words_of_kafka(world: World, kafka: KafkaCase) -> None:
    await add(world, kafka)
    await kafka.faults(reject={"keys": ["c00003"], "message": "the schema registry says no"})
    async with working(world.settings):
        answer = await world.push(people(9))
        assert await world.finished(answer.job_id) == "completed_with_failures"
    assert len(await kafka.messages()) == 8
    [letter] = await world.rows("SELECT record_id, error_code, error_detail FROM dead_letters")
    assert (letter["record_id"], letter["error_code"]) == ("c00003", "DESTINATION_REJECTED")
    assert "the schema registry says no" in letter["error_detail"]


async def test_what_is_changed_deleted_and_undone_here_is_so_there(world: World, kafka: KafkaCase) -> None:
    await add(world, kafka)
    async with working(world.settings):
        first = await world.push(people(3, company="ACME"))
        assert await world.finished(first.job_id) == "completed"
        second = await world.push(people(1, company="Initech"))
        assert await world.finished(second.job_id) == "completed"
        gone = await world.push([{"id": "c00002", "deleted": True}])
        assert await world.finished(gone.job_id) == "completed"
        held = await kafka.held()
        assert {key: document["company"] for key, document in held.items()} == {"c00000": "Initech", "c00001": "ACME"}
        await world.finished(await ask(world, second.job_id))
        await world.finished(await ask(world, first.job_id))
    assert await kafka.held() == {}
    mine = [message for message in await kafka.messages() if message.key() == b"c00000"]
    assert [headers_of(message)["version"] for message in mine] == ["1", "2", "3", "4"]
    assert [message.value() is None for message in mine] == [False, False, False, True]


async def test_a_missing_right_holds_the_destination_until_it_is_granted(world: World, kafka: KafkaCase) -> None:
    await add(world, kafka)
    kafka.proxy.codes[METADATA] = [29]
    async with working(world.settings):
        answer = await world.push(people(5))
        assert await world.finished(answer.job_id) == "completed"
    assert len(await kafka.messages()) == 5
    assert await world.rows("SELECT 1 FROM dead_letters") == []
    changes = await world.rows("SELECT detail FROM circuit_changes ORDER BY change_id")
    assert any("Write the topic contacts" in change["detail"] for change in changes)


async def test_a_canary_is_written_and_taken_away_and_not_read(world: World, kafka: KafkaCase) -> None:
    await add(world, kafka)
    found = await run(world, name="events")
    assert found.verdict is Verdict.WORKS, found.steps
    steps = ["connect", "topic", "write", "brokers", "write", "take away"]
    assert [step.name for step in found.steps] == steps
    assert [message.value() is None for message in await kafka.messages()] == [False, True]


async def test_a_verification_is_refused_in_words(world: World, kafka: KafkaCase) -> None:
    await add(world, kafka)
    async with world.database.connection() as connection:
        with pytest.raises(Invalid, match="'events' cannot be read back"):
            await creation.create(
                connection,
                world.tenant_id,
                "events",
                SyncRequest(mode="verify"),
                catalog=Catalog(),
                request_id="r",
                actor="test",
            )
