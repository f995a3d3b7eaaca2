"""What PostgreSQL alone can do to records: types, constraints, rights, locks, transactions and TLS."""

from __future__ import annotations

import asyncio
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from app.destinations.base_urls import POSTGRESQL, base_url_fault
from app.destinations.kinds import OptionsError, parse
from app.vocabulary.states import EffectState, ErrorCode
from jobs.crm.port import Crm, Difference, Health, Reply, Seen, Timeouts
from jobs.outbound import idle
from jobs.outbound.ssrf import DestinationSessions, GuardedConnector, Place
from tests.conftest import LOOPBACK
from tests.contract.certificates import certificate
from tests.contract.conftest import TOKEN, Connect, connect_postgres, contact, contacts, told
from tests.contract.postgres import PostgresCase
from tests.contract.test_types import OWN
from tests.types import COMPANIES, sent

OK, FAILED, RETRY, UNKNOWN = EffectState.OK, EffectState.FAILED, EffectState.RETRY, EffectState.UNKNOWN
PLAIN: dict[str, Any] = {"version_column": None, "attributes_column": None}
"""Without columns of ours: each attribute has its own, and read-back compares field by field."""


@pytest.fixture
def kind() -> str:
    return "postgres"


@pytest.fixture
def case(sandbox: PostgresCase) -> PostgresCase:
    return sandbox


def states(reply: Reply) -> list[EffectState]:
    return [outcome.state for outcome in reply.outcomes]


async def held(case: PostgresCase, table: str = "contacts") -> dict[str, dict[str, Any]]:
    return {row["key"]: row["properties"] for row in (await case.get(f"contacts?object={table}"))["contacts"]}


# One bad row


async def test_a_row_that_postgresql_refuses_fails_alone_in_its_words(connect: Connect, case: PostgresCase) -> None:
    crm = connect(resource=OWN)
    lines = [
        sent("a", title="x", due="2026-03-31", price=1.5),
        sent("b", title="x", due="2026-02-31"),
        sent("c", title="x", price="cheap"),
        sent("d", title="x", count=3_000_000_000),
        sent("e", title="x", open=True, tags=["new", "sale, really"]),
    ]
    reply = await crm.push(lines, told())

    assert states(reply) == [OK, FAILED, FAILED, FAILED, OK]
    assert {o.code for o in reply.outcomes if o.code} == {ErrorCode.DESTINATION_REJECTED}
    assert 'date/time field value out of range: "2026-02-31"' in reply.outcomes[1].detail
    assert 'invalid input syntax for type numeric: "cheap"' in reply.outcomes[2].detail
    assert "out of range for type integer" in reply.outcomes[3].detail
    assert (reply.health, reply.rejected_whole) == (Health.WELL, False)
    found = await held(case, "order-lines")
    assert found["a"] == {"id": "a", "version": 1, "title": "x", "due": "2026-03-31", "price": 1.5}
    assert found["e"]["tags"] == ["new", "sale, really"]
    assert set(found) == {"a", "e"}


async def test_many_bad_rows_are_found_among_five_hundred(connect: Connect, case: PostgresCase) -> None:
    crm = connect(timeouts=Timeouts(20.0, 60.0))
    await case.owner.execute("ALTER TABLE crm.contacts ADD CHECK (company <> 'bad')")
    batch = [contact(f"c{n}", company="bad" if n % 50 == 7 else "good") for n in range(500)]
    reply = await crm.push(batch, told())

    assert [n for n, state in enumerate(states(reply)) if state is FAILED] == list(range(7, 500, 50))
    assert all("contacts_company_check" in o.detail for o in reply.outcomes if o.state is FAILED)
    assert "Failing row" not in str(reply), "it shows values of the row that nobody sent"
    assert len(await held(case)) == 490


async def test_a_value_that_another_row_has_is_named(crm: Crm, case: PostgresCase) -> None:
    await case.owner.execute("CREATE UNIQUE INDEX one_email ON crm.contacts (email)")
    reply = await crm.push([contact("c1", email="a@x.org"), contact("c2", email="a@x.org")], told())
    assert states(reply) == [OK, FAILED]
    assert "one_email" in reply.outcomes[1].detail
    assert "(email)=(a@x.org) already exists" in reply.outcomes[1].detail


async def test_a_constraint_that_waits_for_commit_refuses_its_own_row(crm: Crm, case: PostgresCase) -> None:
    await case.owner.execute(
        """CREATE TABLE crm.firms (name text PRIMARY KEY); INSERT INTO crm.firms VALUES ('ACME');
        ALTER TABLE crm.contacts ADD FOREIGN KEY (company) REFERENCES crm.firms DEFERRABLE INITIALLY DEFERRED"""
    )
    reply = await crm.push([contact("c1", company="ACME"), contact("c2", company="nobody")], told())
    assert states(reply) == [OK, FAILED]
    assert "(company)=(nobody) is not present" in reply.outcomes[1].detail


async def test_a_row_that_a_policy_refuses_is_no_lack_of_rights(crm: Crm, case: PostgresCase) -> None:
    await case.owner.execute(
        """ALTER TABLE crm.contacts ENABLE ROW LEVEL SECURITY;
        CREATE POLICY any_row ON crm.contacts USING (true) WITH CHECK (company <> 'secret')"""
    )
    reply = await crm.push([contact("c1", company="secret")], told())
    assert (states(reply), reply.health) == ([FAILED], Health.WELL)
    assert "row-level security" in reply.outcomes[0].detail


async def test_a_trigger_that_fails_for_one_row_holds_no_other(crm: Crm, case: PostgresCase) -> None:
    """Its error is one that a missing table has as well."""
    await case.owner.execute(
        """CREATE FUNCTION crm.fail() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN IF NEW.id = 'c1' THEN PERFORM 1 FROM crm.no_such_table; END IF; RETURN NEW; END $$;
        CREATE TRIGGER fail BEFORE INSERT ON crm.contacts FOR EACH ROW EXECUTE FUNCTION crm.fail()"""
    )
    reply = await crm.push(contacts(4), told())
    assert (states(reply), reply.health) == ([OK, FAILED, OK, OK], Health.WELL)
    assert "no_such_table" in reply.outcomes[1].detail


async def test_two_keys_of_one_row_do_not_fail_each_other(connect: Connect, case: PostgresCase) -> None:
    await case.owner.execute(
        "CREATE TABLE crm.numbered (id int PRIMARY KEY, email text); GRANT ALL ON crm.numbered TO " + case.user
    )
    crm = connect(options={**PLAIN, "table": "crm.numbered"})
    reply = await crm.push([sent("7", email="a"), sent("007", email="b"), sent("x", email="c")], told())
    assert states(reply) == [OK, OK, FAILED]
    assert [o.remote_id for o in reply.outcomes] == ["7", "7", None]
    assert (await crm.read_back([sent("x", email="c")], told())).seen == {"x": Seen.ABSENT}


# What is wrong with the table


@pytest.mark.parametrize(
    ("breaks", "code", "remedy"),
    [
        ("DROP TABLE crm.contacts", "no table", "option table"),
        ("REVOKE INSERT ON crm.contacts FROM {user}", "42501", 'GRANT SELECT, INSERT, UPDATE, DELETE ON "crm"'),
        ("REVOKE USAGE ON SCHEMA crm FROM {user}", "42501", "GRANT USAGE ON SCHEMA"),
        ("ALTER TABLE crm.contacts DROP CONSTRAINT contacts_pkey", "42P10", "CREATE UNIQUE INDEX"),
        ("ALTER TABLE crm.contacts DROP COLUMN version", "'version'", "option version_column"),
        ("ALTER TABLE crm.contacts ADD branch text NOT NULL", "23502", "default"),
        ("ALTER TABLE crm.contacts ALTER attributes TYPE text", "42", "look at the table"),
    ],
)
async def test_a_table_that_does_not_fit_holds_the_destination(
    crm: Crm, case: PostgresCase, breaks: str, code: str, remedy: str
) -> None:
    await case.owner.execute(breaks.format(user=case.user))
    batch = [contact(f"c{n}", attributes={"plan": "gold"}) for n in range(20)]
    reply = await crm.push(batch, told())

    assert {(o.state, o.code) for o in reply.outcomes} == {(RETRY, ErrorCode.DESTINATION_UNAVAILABLE)}
    assert (reply.health, reply.rejected_whole) == (Health.SETUP_FAULT, False)
    assert code in reply.detail
    assert remedy in reply.detail


async def test_the_remedy_for_missing_rights_mends_them(crm: Crm, case: PostgresCase) -> None:
    await case.owner.execute(f"REVOKE ALL ON crm.contacts FROM {case.user}; REVOKE ALL ON SCHEMA crm FROM {case.user}")
    reply = await crm.push(contacts(1), told())
    await case.owner.execute(reply.detail[reply.detail.index("GRANT") :].rstrip("."))
    assert states(await crm.push(contacts(1), told())) == [OK]


async def test_a_column_that_is_added_or_widened_is_used_at_once(connect: Connect, case: PostgresCase) -> None:
    crm = connect(options=PLAIN)
    await case.owner.execute("ALTER TABLE crm.contacts ALTER company TYPE varchar(4)")
    long = contact("c1", company="Analytical", attributes={"tier": "gold"})
    reply = await crm.push([long], told())
    assert reply.health is Health.SETUP_FAULT
    assert '--field "tier="' in reply.detail
    await case.owner.execute("ALTER TABLE crm.contacts ADD tier text")
    reply = await crm.push([long], told())
    assert states(reply) == [FAILED]
    assert "value too long for type character varying(4)" in reply.outcomes[0].detail
    await case.owner.execute("ALTER TABLE crm.contacts ALTER company TYPE varchar(40)")
    assert states(await crm.push([long], told())) == [OK]


# Locks


async def test_a_row_that_somebody_holds_waits_alone(crm: Crm, case: PostgresCase) -> None:
    await crm.push(contacts(5), told())
    other = await asyncpg.connect(case.owner_url)
    await other.execute("BEGIN; UPDATE crm.contacts SET company = 'x' WHERE id = 'c2'")
    reply = await crm.push([contact(f"c{n}", version=2, phone=str(n)) for n in range(5)], told())
    await other.close()

    assert states(reply) == [OK, OK, RETRY, OK, OK]
    assert (reply.outcomes[2].code, reply.health) == (ErrorCode.DESTINATION_UNAVAILABLE, Health.WELL)
    assert "55P03" in reply.outcomes[2].detail
    assert {key: row["phone"] for key, row in (await held(case)).items() if key != "c2"} == {
        "c0": "0", "c1": "1", "c3": "3", "c4": "4",
    }  # fmt: skip


async def test_writers_that_meet_do_not_deadlock(connect: Connect, case: PostgresCase) -> None:
    crm = connect(timeouts=Timeouts(5.0, 20.0))
    batch = contacts(100)
    replies = await asyncio.gather(
        *(
            crm.push([contact(r.record_id, phone=f"{n}") for r in batch[:: 1 if n % 2 else -1]], told())
            for n in range(8)
        )
    )
    assert {state for reply in replies for state in states(reply)} == {OK}
    await case.owner.execute("SELECT 1")


# Types and read-back

TYPED = """
CREATE TYPE crm.mood AS ENUM ('fine', 'bad');
CREATE DOMAIN crm.positive AS int CHECK (VALUE > 0);
CREATE TABLE crm.typed (
    id text PRIMARY KEY, amount numeric(10,2), ratio float4, day date, moment timestamptz, local timestamp,
    yes boolean, tags text[], numbers int[], doc jsonb, old_doc json, code char(5), mood crm.mood, size crm.positive,
    key uuid, place point, words text, big bigint
);
"""


@pytest.mark.parametrize(
    ("column", "value", "stored", "other"),
    [
        ("amount", 2.555, "2.56", 2.57),
        ("amount", 3, "3.00", None),
        ("ratio", 0.1, "0.1", 0.2),
        ("day", "2026-03-31", "2026-03-31", "2026-04-01"),
        ("moment", "2026-03-31T12:00:00+02:00", "2026-03-31 10:00:00+00", "2026-03-31T12:00:00Z"),
        ("moment", "2026-03-31T12:00:00", "2026-03-31 12:00:00+00", "2026-03-31T12:00:00+02:00"),
        ("local", "2026-03-31T12:00:00Z", "2026-03-31 12:00:00", "2026-03-31T12:00:01Z"),
        ("yes", True, "true", False),
        ("tags", ["a", "b,c", ""], '{a,"b,c",""}', ["a"]),
        ("tags", [], "{}", ["a"]),
        ("numbers", [1, 2], "{1,2}", [2, 1]),
        ("doc", {"b": [1, None]}, '{"b": [1, null]}', {"b": []}),
        ("doc", [1, 2], "[1, 2]", [2]),
        ("doc", "text", '"text"', "other"),
        ("old_doc", {"b": 1}, '{"b": 1}', {"b": 2}),
        ("code", "ab", "ab", "ac"),
        ("mood", "fine", "fine", "bad"),
        ("size", 5, "5", 6),
        ("key", "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", None),
        ("place", "(1,2)", "(1,2)", "(1,3)"),
        ("words", True, "true", False),
        ("words", 12.50, "12.5", 13),
        ("words", ["a"], '["a"]', ["b"]),
        ("words", "  padded\r\nline ", "  padded\r\nline ", "x"),
        ("big", 2**63 - 1, str(2**63 - 1), 0),
    ],
    ids=repr,
)
async def test_a_value_becomes_one_of_its_column_and_is_read_back_as_such(
    connect: Connect, case: PostgresCase, column: str, value: Any, stored: str, other: Any
) -> None:
    await case.owner.execute(TYPED + f"GRANT ALL ON crm.typed TO {case.user}")
    await case.owner.execute(f"ALTER ROLE {case.user} SET timezone = 'Asia/Tokyo'")
    nobody = dict.fromkeys(("email", "first_name", "last_name", "phone", "company"))
    crm = connect(options={**PLAIN, "table": "crm.typed", "columns": nobody})
    record = sent("r", attributes={column: value})
    assert (await crm.push([record], told())).outcomes[0].detail == ""
    await case.owner.execute("SET timezone = 'UTC'")
    assert await case.owner.fetchval(f"SELECT {column}::text FROM crm.typed") == stored
    different = sent("r", attributes={column: other})
    back = await crm.read_back([record], told())
    assert (back.seen, back.remote_ids, back.health) == ({"r": Seen.MATCHES}, {"r": "r"}, Health.WELL)
    assert (await crm.read_back([different], told())).seen == {"r": Seen.DIFFERS}


async def test_a_value_that_cannot_be_there_differs_and_hides_nobody(connect: Connect) -> None:
    crm = connect(resource=OWN, options=PLAIN)
    await crm.push([sent("a", title="x"), sent("b", title="x")], told())
    asked = [sent("a", title="x"), sent("b", title="x", due="never"), sent("c", title="x", due="never")]
    assert (await crm.read_back(asked, told())).seen == {"a": Seen.MATCHES, "b": Seen.DIFFERS, "c": Seen.ABSENT}


async def test_without_a_version_column_fields_decide(connect: Connect, case: PostgresCase) -> None:
    crm = connect(options=PLAIN)
    await crm.push([contact("c1", email="Ada@Example.org")], told())
    await case.owner.execute("UPDATE crm.contacts SET email = ' ada@example.org '")
    same, other = contact("c1", email="Ada@Example.org", version=9), contact("c1", company="Other")
    assert (await crm.read_back([same], told())).seen == {"c1": Seen.MATCHES}
    assert (await crm.read_back([other], told())).seen == {"c1": Seen.DIFFERS}


async def test_an_older_version_never_replaces_a_newer_one(crm: Crm, case: PostgresCase) -> None:
    await crm.push([contact("c1", version=5, phone="new")], told())
    reply = await crm.push([contact("c1", version=4, phone="old"), contact("c2", version=4)], told())
    assert [(o.state, o.created) for o in reply.outcomes] == [(OK, False), (OK, True)]
    assert (await held(case))["c1"]["phone"] == "new"
    assert (await crm.read_back([contact("c1", version=4, phone="old")], told())).seen == {"c1": Seen.MATCHES}


async def test_a_row_with_the_very_version_is_compared_by_its_fields(connect: Connect, case: PostgresCase) -> None:
    crm = connect()
    ours = contact("c1", version=5, phone="+49", attributes={"tier": "gold", "size": 3})
    await crm.push([ours], told())
    await case.owner.execute(
        """UPDATE crm.contacts SET phone = '+1', attributes = attributes || '{"tier":"silver","own":1}'"""
    )
    assert (await crm.read_back([ours], told())).seen == {"c1": Seen.MATCHES}, "a lost answer is settled by its version"
    back = await crm.read_back([ours], told(), by_fields=True)
    assert back.seen == {"c1": Seen.DIFFERS}
    assert back.differences["c1"] == [Difference("phone", "+49", "+1"), Difference("attributes.tier", "gold", "silver")]
    older, newer = contact("c1", version=4, phone="+2"), contact("c1", version=6, phone="+1")
    assert (await crm.read_back([older], told(), by_fields=True)).seen == {"c1": Seen.MATCHES}
    back = await crm.read_back([newer], told(), by_fields=True)
    assert back.differences["c1"][-1] == Difference("version", "6", "5")


async def test_what_is_there_already_is_not_written_again(connect: Connect, case: PostgresCase) -> None:
    crm = connect(options=PLAIN)
    await crm.push([contact("c1")], told())
    before = await case.owner.fetchval("SELECT xmin::text FROM crm.contacts")
    reply = await crm.push([contact("c1", version=2)], told())
    assert (reply.outcomes[0].state, reply.outcomes[0].created) == (OK, False)
    assert await case.owner.fetchval("SELECT xmin::text FROM crm.contacts") == before


async def test_records_that_name_different_fields_go_in_one_transaction(crm: Crm, case: PostgresCase) -> None:
    await case.edit("id", "c1", {"phone": "typed", "company": "typed"})
    reply = await crm.push(
        [sent("c1", email="a", phone=None), sent("c2", email="b", company="ACME"), sent("c3", attributes={"x": 1})],
        told(),
    )
    assert states(reply) == [OK, OK, OK]
    found = await held(case)
    assert found["c1"] == {"id": "c1", "version": 1, "email": "a", "company": "typed"}
    assert found["c2"] == {"id": "c2", "version": 1, "email": "b", "company": "ACME"}
    assert found["c3"] == {"id": "c3", "version": 1, "attributes": {"x": 1}}
    assert len(await case.calls()) == 1


async def test_attributes_merge_key_by_key(crm: Crm, case: PostgresCase) -> None:
    await crm.push([contact("c1", attributes={"a": 1, "b": {"x": 1}, "it's": "\\"})], told())
    await crm.push(
        [contact("c1", version=2, attributes={"a": None, "b": {"y": 2}, "it's": None, "never": None})], told()
    )
    assert (await held(case))["c1"]["attributes"] == {"b": {"y": 2}}


async def test_columns_name_where_fields_go(connect: Connect, case: PostgresCase) -> None:
    columns = {"phone": "Work_Phone__c", "companies.phone": "phone", "company": None, "plan": "Tier__c"}
    crm = connect(options={"columns": columns})
    await crm.push([contact("c1", attributes={"plan": "gold", "rest": 1})], told())
    found = (await held(case))["c1"]
    assert (found["Work_Phone__c"], found["Tier__c"]) == ("001-808-617-6467x12895", "gold")
    assert found["attributes"] == {"rest": 1}
    assert "company" not in found
    reply = await connect(resource=COMPANIES, options={"columns": columns}).push(
        [sent("x", name="X", phone="1")], told()
    )
    assert states(reply) == [OK]


@pytest.mark.parametrize("column", ["boolean", "boolean NOT NULL DEFAULT false", "timestamptz"])
async def test_a_column_marks_removed_rows(connect: Connect, case: PostgresCase, column: str) -> None:
    await case.owner.execute(f"ALTER TABLE crm.contacts ADD gone {column}")
    await case.owner.execute(f"REVOKE DELETE ON crm.contacts FROM {case.user}")
    crm = connect(options={"deleted_column": "gone"})
    await crm.push(contacts(2), told())
    reply = await crm.archive([sent("c0", 2, deleted=True), sent("never", 2, deleted=True)], told())
    assert states(reply) == [OK, OK]
    assert (await held(case))["c0"]["gone"] not in (None, False)
    assert (await held(case))["c0"]["version"] == 2
    back = await crm.read_back([contact("c0"), sent("c0", 2, deleted=True), contact("c1")], told())
    assert back.seen == {"c0": Seen.ABSENT, "c1": Seen.MATCHES}
    reply = await crm.push([contact("c0", version=3), contact("c1", version=3)], told())
    assert [o.created for o in reply.outcomes] == [True, False]
    assert (await crm.read_back([contact("c0", version=3)], told())).seen == {"c0": Seen.MATCHES}


async def test_a_row_that_others_refer_to_is_not_deleted(crm: Crm, case: PostgresCase) -> None:
    await crm.push(contacts(2), told())
    await case.owner.execute(
        "CREATE TABLE crm.notes (of text REFERENCES crm.contacts); INSERT INTO crm.notes VALUES ('c0')"
    )
    reply = await crm.archive([sent("c0", 2, deleted=True), sent("c1", 2, deleted=True)], told())
    assert states(reply) == [FAILED, OK]
    assert "notes" in reply.outcomes[0].detail


# Views and partitions


async def test_a_partitioned_table_does_not_say_who_made_a_row(connect: Connect, case: PostgresCase) -> None:
    await case.owner.execute(
        f"""CREATE TABLE crm.parts (id text PRIMARY KEY, email text) PARTITION BY HASH (id);
        CREATE TABLE crm.parts0 PARTITION OF crm.parts FOR VALUES WITH (MODULUS 1, REMAINDER 0);
        GRANT ALL ON crm.parts TO {case.user}"""
    )
    crm = connect(options={**PLAIN, "table": "crm.parts"})
    first = await crm.push([sent("a", email="x")], told())
    again = await crm.push([sent("a", email="y")], told())
    assert [(o.state, o.created) for r in (first, again) for o in r.outcomes] == [(OK, None), (OK, None)]


# Connections


async def test_connections_are_kept_and_closed_when_nobody_needs_them(
    connect: Connect, case: PostgresCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idle, "IDLE_SECONDS", 0.5)
    crm = connect()
    for _ in range(3):
        await crm.push(contacts(1), told())
    opened = case.proxy.connections
    assert opened == 1
    await backends(case, 0)
    assert states(await crm.push(contacts(1), told())) == [OK]
    assert case.proxy.connections > opened


async def backends(case: PostgresCase, count: int) -> None:
    async with asyncio.timeout(20):
        while True:
            found = await case.owner.fetchval("SELECT count(*) FROM pg_stat_activity WHERE usename = $1", case.user)
            if found == count:
                return
            await asyncio.sleep(0.02)


async def test_a_session_that_ends_takes_its_connections_along(case: PostgresCase) -> None:
    async with DestinationSessions(LOOPBACK) as sessions:
        crm = connect_postgres(case, sessions.to(case.url))()
        await crm.push(contacts(1), told())
        await backends(case, 1)
    await backends(case, 0)


async def test_a_kept_connection_that_was_ended_harms_nobody(crm: Crm, case: PostgresCase) -> None:
    await crm.push(contacts(1), told())
    await case.owner.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", case.user)
    await backends(case, 0)
    reply = await crm.push(contacts(2), told())
    assert (states(reply), reply.health) == ([OK, OK], Health.WELL)


async def test_a_server_that_stops_during_a_statement_leaves_nobody_in_doubt(crm: Crm, case: PostgresCase) -> None:
    await case.lock()
    push = asyncio.create_task(crm.push(contacts(2), told()))
    await case.wait_for_lock()
    await case.owner.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", case.user)
    reply = await push
    assert (states(reply), reply.health) == ([RETRY, RETRY], Health.CRM_FAULT)
    await case.unlock()
    assert await held(case) == {}


async def test_what_is_given_up_ends_at_the_server_as_well(connect: Connect, case: PostgresCase) -> None:
    """Or its locks would outlive it."""
    crm = connect(timeouts=Timeouts(1.0, 1.0))
    await case.owner.execute(
        """CREATE FUNCTION crm.sleep() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN PERFORM pg_sleep(60); RETURN NEW; END $$;
        CREATE TRIGGER sleep BEFORE INSERT ON crm.contacts FOR EACH ROW EXECUTE FUNCTION crm.sleep()"""
    )
    reply = await crm.push(contacts(1), told())
    assert (states(reply), reply.health, reply.timed_out) == ([RETRY], Health.CRM_FAULT, True)
    await backends(case, 0)


async def test_a_wrong_database_or_password_counts_against_the_connection(connect: Connect, case: PostgresCase) -> None:
    for wrong in ({"token": "wrong"}, {"base_url": case.url.rpartition("/")[0] + "/nowhere"}):
        reply = await connect(**wrong).push(contacts(1), told())
        assert (states(reply), reply.health) == ([RETRY], Health.CONNECTION_FAULT)
        assert str(case.proxy.port) not in reply.detail


async def test_a_secret_that_postgresql_echoes_is_shown_to_nobody(crm: Crm, case: PostgresCase) -> None:
    await case.faults(reject={"message": f"your password {TOKEN} is no good"})
    reply = await crm.push(contacts(2), told())
    assert "is no good" in reply.outcomes[0].detail
    assert TOKEN not in str(reply)


async def test_a_quote_in_a_request_id_is_only_a_quote(crm: Crm, case: PostgresCase) -> None:
    await crm.push(contacts(1), told("it's \\'; DROP TABLE crm.contacts; --"))
    [effect] = await case.effects()
    assert effect["request_id"].startswith("it's \\'; DROP TABLE")


# Where it may connect


async def test_an_inward_address_is_not_called(case: PostgresCase) -> None:
    async with DestinationSessions(()) as sessions:
        reply = await connect_postgres(case, sessions.to(case.url))().push(contacts(1), told())
    assert (states(reply), reply.health) == ([RETRY], Health.CONNECTION_FAULT)
    assert reply.pause is not None
    assert "TRANCHE_DESTINATION_PRIVATE" in reply.detail
    assert case.proxy.connections == 0


class Public(GuardedConnector):
    """As if the proxy were on the public internet."""

    async def find(self, host: str, port: int) -> list[Place]:
        return [Place("127.0.0.1", named=False)]


@asynccontextmanager
async def public(case: PostgresCase) -> AsyncIterator[Connect]:
    async with DestinationSessions(LOOPBACK) as sessions:
        session = sessions.to(case.url)
        assert isinstance(session.connector, GuardedConnector)
        session.connector.__class__ = Public
        yield connect_postgres(case, session)


@pytest.mark.parametrize("mode", ["disable", "prefer"])
async def test_nothing_is_sent_in_the_clear_over_the_internet(case: PostgresCase, mode: str) -> None:
    async with public(case) as connect:
        reply = await connect(options={"sslmode": mode}).push(contacts(1), told())
    assert (states(reply), reply.health) == ([RETRY], Health.CONNECTION_FAULT)
    assert "sslmode" in reply.detail
    assert case.proxy.connections == 0


@pytest.mark.parametrize("mode", [None, "require", "verify-full"])
async def test_a_server_without_tls_gets_no_password(case: PostgresCase, mode: str | None) -> None:
    async with public(case) as connect:
        reply = await connect(options={"sslmode": mode}).push(contacts(1), told())
    assert (states(reply), reply.health) == ([RETRY], Health.CONNECTION_FAULT)
    assert "does not offer TLS" in reply.detail
    assert case.proxy.calls == []


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://db.example.com/sales",
        "postgresql://db.example.com:6432/sales",
        "postgresql://[2606:4700::1111]:5432/sales",
    ],
)
def test_a_base_url_names_host_and_database(url: str) -> None:
    assert base_url_fault(url, (), POSTGRESQL) is None


@pytest.mark.parametrize(
    "url",
    [
        "https://db.example.com/sales",
        "postgres://db.example.com/sales",
        "postgresql://db.example.com",
        "postgresql://db.example.com/sales?sslmode=disable",
        "postgresql://ada:secret@db.example.com/sales",
        "postgresql://db.example.com/a/b",
        "postgresql:///sales",
    ],
)
def test_anything_else_is_no_base_url(url: str) -> None:
    fault = base_url_fault(url, (), POSTGRESQL)
    assert fault is not None
    assert "postgresql://db.example.com:5432/sales" in fault
    assert "sslmode is an option" in fault
    assert "secret" not in fault


def test_a_base_url_within_a_network_is_refused() -> None:
    assert "TRANCHE_DESTINATION_PRIVATE" in (base_url_fault("postgresql://10.0.0.1/x", (), POSTGRESQL) or "")
    assert base_url_fault("postgresql://127.0.0.1/x", LOOPBACK, POSTGRESQL) is None


@pytest.mark.parametrize(
    "options",
    [
        {"table": 'a"b'},
        {"table": "a.b.c"},
        {"sslmode": "allow"},
        {"version_column": "id"},
        {"columns": {"email": "id"}},
        {"ssl_root_certificate": "/etc/ssl/ca.pem"},
    ],
    ids=str,
)
def test_options_that_cannot_work_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(OptionsError):
        parse("postgres", options)


# TLS

Answering = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]


@asynccontextmanager
async def tls_server(files: tuple[Path, Path, str], answer: Answering) -> AsyncIterator[int]:
    """One that takes the TLS of PostgreSQL's protocol, and then does what `answer` does."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files[0], files[1])
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await reader.readexactly(8)
            writer.write(b"S")
            await writer.start_tls(context)
            await answer(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def to(case: PostgresCase) -> Answering:
    """Hand everything on to PostgreSQL."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream, onward = await asyncio.open_connection("127.0.0.1", case.proxy.target_port)

        async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            while data := await source.read(65_536):
                target.write(data)
            target.close()

        await asyncio.gather(copy(reader, onward), copy(upstream, writer))

    return answer


def at(case: PostgresCase, port: int, host: str = "localhost") -> str:
    return f"postgresql://{host}:{port}/{case.url.rpartition('/')[2]}"


@pytest.mark.parametrize(
    ("name", "options", "works"),
    [
        ("localhost", {"sslmode": "verify-full", "ssl_root_certificate": "own"}, True),
        ("localhost", {"ssl_root_certificate": "own"}, True),
        ("localhost", {"sslmode": "require"}, True),
        ("elsewhere.example", {"sslmode": "verify-ca", "ssl_root_certificate": "own"}, True),
        ("elsewhere.example", {"sslmode": "verify-full", "ssl_root_certificate": "own"}, False),
        ("localhost", {"sslmode": "verify-full"}, False),
        ("localhost", {"sslmode": "verify-ca"}, False),
        ("localhost", {}, False),
    ],
    ids=str,
)
async def test_the_certificate_is_that_of_the_host(
    case: PostgresCase, tmp_path: Path, name: str, options: dict[str, Any], works: bool
) -> None:
    """The host of the base URL, though an address is called; without an option, as on the public internet."""
    files = certificate(tmp_path, name)
    if "ssl_root_certificate" in options:
        options = {**options, "ssl_root_certificate": files[2]}
    async with tls_server(files, to(case)) as port, public(case) as connect:
        crm = connect(base_url=at(case, port), options=options)
        reply = await crm.push(contacts(2), told())
        if works:
            assert states(reply) == [OK, OK], reply
            [first, *_] = await crm.check(told())
            assert "encrypted by TLS" in first.detail
        else:
            assert (states(reply), reply.health) == ([RETRY, RETRY], Health.CONNECTION_FAULT)
            assert "TLS" in reply.detail


async def test_a_server_cannot_have_a_worker_compute_for_ever(case: PostgresCase, tmp_path: Path) -> None:
    asked: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(4096)
        writer.write(b"R" + struct.pack("!ii", 23, 10) + b"SCRAM-SHA-256\0\0")
        first = await reader.read(4096)
        nonce = first.rpartition(b"r=")[2]
        said = b"r=" + nonce + b"x,s=" + b"AAAA" * 4 + b",i=2147483647"
        for piece in (said[:-5], said[-5:]):
            asked.append(piece)
            if len(asked) == 1:
                writer.write(b"R" + struct.pack("!ii", 8 + len(said), 11) + piece)
            else:
                writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.05)
        await reader.read(4096)

    async with tls_server(certificate(tmp_path, "localhost"), answer) as port, public(case) as connect:
        crm = connect(base_url=at(case, port), options={"sslmode": "require"}, timeouts=Timeouts(5.0, 5.0))
        async with asyncio.timeout(60):
            reply = await crm.push(contacts(1), told())
    assert len(asked) == 2
    assert (states(reply), reply.health, reply.timed_out) == ([RETRY], Health.CRM_FAULT, False)


@pytest.mark.parametrize(
    ("begins", "goes_on"),
    [(b"D" + struct.pack("!i", 2**31 - 1), b" " * 1_000_000), (b"", (b"N\0\0\x40\0" + b" " * 16_380) * 61)],
    ids=["one row", "many notices"],
)
async def test_an_answer_without_end_is_cut(case: PostgresCase, tmp_path: Path, begins: bytes, goes_on: bytes) -> None:
    sent_bytes = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent_bytes
        await reader.read(4096)
        writer.write(b"R" + struct.pack("!ii", 8, 0) + b"Z\0\0\0\x05I")
        await reader.read(4096)  # BEGIN
        writer.write(begins)
        while True:
            writer.write(goes_on)
            sent_bytes += len(goes_on)
            await writer.drain()

    async with tls_server(certificate(tmp_path, "localhost"), answer) as port, public(case) as connect:
        crm = connect(base_url=at(case, port), options={"sslmode": "require"}, timeouts=Timeouts(20.0, 30.0))
        reply = await crm.push(contacts(1), told())
    assert (states(reply), reply.health, reply.timed_out) == ([RETRY], Health.CRM_FAULT, False)
    assert "larger than 8000000 bytes" in reply.detail
    assert sent_bytes < 40_000_000


async def test_no_answer_is_too_odd(connect: Connect) -> None:
    """Whatever speaks there: nothing is raised, and what was never committed is not in doubt."""
    pieces = (
        *(b"N", b"S", b"E", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0" * 50, b"R\0\0\0\x08\0\0\0\0", b"Z\0\0\0\x05I"),
        *(b"R\0\0\0\x08\0\0\0\x03", b"R\0\0\0\x0c\0\0\0\x05salt", b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0", b"T\0\0"),
        *(b"R\0\0\0\x0c\0\0\0\x0br=,s", b"S\0\0\0\x09a\0b\0\0", b"C\0\0\0\x0bCOMMIT\0", b"R\0\0\0\x08\0\0\0\x63"),
        b"E\0\0\0\x1dSERROR\0C28P01\0Mno entry\0\0",
    )
    import random

    rng = random.Random(11)
    turn = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            for _ in range(rng.randrange(1, 6)):
                await reader.read(4096)
                writer.write(b"".join(rng.choices(pieces, k=rng.randrange(1, 4))))
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"postgresql://127.0.0.1:{server.sockets[0].getsockname()[1]}/x"
    for turn in range(150):
        crm = connect(base_url=url, options={"sslmode": rng.choice(["disable", "prefer"])}, timeouts=Timeouts(0.2, 0.3))
        reply = await (crm.push if turn % 2 else crm.archive)(contacts(2), told())
        assert {o.state for o in reply.outcomes} <= {RETRY, FAILED, UNKNOWN}
        assert all(o.detail and o.code for o in reply.outcomes)
        assert (await crm.read_back(contacts(1), told())).seen is None
        assert (await crm.check(told()))[-1].ok is False
    server.close()


# The test of a destination


async def steps_of(crm: Crm) -> dict[str, tuple[bool | None, str]]:
    return {step.name: (step.ok, step.detail) for step in await crm.check(told())}


async def test_a_table_that_fits_passes(connect: Connect, case: PostgresCase) -> None:
    for resource in (OWN, COMPANIES):
        steps = await steps_of(connect(resource=resource))
        assert list(steps) == ["connect", "table", "columns", "write", "remove", "read"]
        assert {ok for ok, _ in steps.values()} == {True}, steps
    assert await case.effects() == []


@pytest.mark.parametrize(
    ("breaks", "step", "words"),
    [
        ('ALTER TABLE crm."order-lines" ALTER due TYPE int USING 1', "columns", "due is of type integer"),
        ('ALTER TABLE crm."order-lines" ALTER price TYPE int', "columns", "price is of type integer"),
        ('ALTER TABLE crm."order-lines" ALTER tags TYPE int USING 1', "columns", "tags is of type integer"),
        ('ALTER TABLE crm."order-lines" ALTER open TYPE date USING NULL', "columns", "open is of type date"),
        ('ALTER TABLE crm."order-lines" DROP due', "columns", '--field "due="'),
        ('ALTER TABLE crm."order-lines" ADD branch text NOT NULL', "columns", "branch is NOT NULL"),
        ('ALTER TABLE crm."order-lines" ALTER attributes TYPE text', "columns", "should be jsonb"),
        (
            'ALTER TABLE crm."order-lines" DROP title, ADD title text GENERATED ALWAYS AS (id) STORED',
            "columns",
            "computes title itself",
        ),
        ('ALTER TABLE crm."order-lines" DROP CONSTRAINT "order-lines_pkey"', "write", "CREATE UNIQUE INDEX"),
        ('REVOKE UPDATE ON crm."order-lines" FROM {user}', "write", "GRANT"),
        ('REVOKE DELETE ON crm."order-lines" FROM {user}', "remove", "GRANT"),
        ('REVOKE SELECT ON crm."order-lines" FROM {user}', "read", "GRANT"),
        ('DROP TABLE crm."order-lines"', "table", "no table"),
        ('ALTER TABLE crm."order-lines" DROP version', "table", "version_column"),
    ],
)
async def test_what_does_not_fit_is_named(
    connect: Connect, case: PostgresCase, breaks: str, step: str, words: str
) -> None:
    await case.owner.execute(breaks.format(user=case.user))
    steps = await steps_of(connect(resource=OWN))
    ok, detail = steps[step]
    assert ok is False
    assert words in detail
    assert await case.effects() == []


async def test_types_that_take_any_value_pass(connect: Connect, case: PostgresCase) -> None:
    await case.owner.execute(
        """ALTER TABLE crm."order-lines" ALTER due TYPE text, ALTER price TYPE float8, ALTER open TYPE jsonb USING NULL,
        ALTER tags TYPE jsonb USING NULL, ALTER title TYPE varchar(2000), ALTER count TYPE bigint"""
    )
    steps = await steps_of(connect(resource=OWN))
    assert {ok for ok, _ in steps.values()} == {True}, steps


def test_the_page_of_the_kind_is_true() -> None:
    """Its grants are those that the tests run with."""
    from tests.contract.postgres import GRANTS

    page = (Path(__file__).parents[2] / "docs" / "destinations-postgres.md").read_text()
    for line in GRANTS.strip().splitlines():
        assert line.format(user="tranche_sync") in page
