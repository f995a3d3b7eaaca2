"""No destination is called within a network that the operator did not name; what is owed there waits, and says why."""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import Any

import msgspec
import pytest

from app.destinations import service
from app.kit.encryption import Vault
from app.kit.notifier import Notifier
from app.settings import Settings
from app.vocabulary.addresses import parse_networks
from jobs.crm.exchange import NoAnswer, send
from jobs.crm.port import Timeouts
from jobs.outbound.ssrf import AddressRefused, DestinationSessions, PublicOnlySocketFactory
from jobs.worker import working
from tests.conftest import LOOPBACK
from tests.jobs.breaker.test_circuits import until
from tests.jobs.conftest import World, people


def unnamed(settings: Settings, networks: str = "") -> Settings:
    return msgspec.structs.replace(settings, destination_private=networks)


async def shown(world: World) -> service.Destination:
    async with world.database.connection() as connection:
        (found,) = await service.list_destinations(connection, world.tenant_id)
    return found


async def held(world: World, settings: Settings) -> service.Destination:
    """Work until the destination is held; what is shown of it then."""
    async with working(settings):

        async def is_held() -> bool:
            return (await shown(world)).error_code is not None

        await until(is_held)
        await asyncio.sleep(0.5)
        return await shown(world)


async def move(world: World, base_url: str) -> None:
    """As if an older release had added it there."""
    vault = Vault(world.settings.secret_key)
    sealed = vault.seal("pat-good", tenant_id=world.tenant_id, name="hubspot", address=base_url)
    await world.rows("UPDATE destinations SET base_url = $1, credentials = $2", base_url, sealed)


async def untried(world: World) -> bool:
    rows = await world.rows("SELECT states, attempt FROM deliveries WHERE tenant_id = $1", world.tenant_id)
    return all(set(row["states"]) == {"p"} for row in rows) and not await world.rows("SELECT FROM dead_letters")


async def again(world: World) -> None:
    """The wait is over."""
    await world.rows("UPDATE destinations SET blocked_until = now()")


@pytest.mark.parametrize("host", ["127.0.0.1", "rebinding.example"])
async def test_what_leads_inwards_is_not_called_and_nothing_is_lost(
    world: World, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    """An address that an older release took, and a name that began to stand for one after it was added."""
    look_up = socket.getaddrinfo

    def rebind(name: Any, *arguments: Any, **options: Any) -> Any:
        return look_up("127.0.0.1" if name == "rebinding.example" else name, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", rebind)
    port = world.sandbox.base_url.rpartition(":")[2]
    job = await world.push(people(5))
    for scheme in ("https", "http"):
        await move(world, f"{scheme}://{host}:{port}")
        found = await held(world, unnamed(world.settings))
        assert found.error_code == "DESTINATION_UNAVAILABLE"
        assert found.retry_after_seconds > 20
        detail = found.detail or ""
        assert "TRANCHE_DESTINATION_PRIVATE" in detail
        assert "127" not in detail
        assert port not in detail
        assert await untried(world)
        assert await world.sandbox.calls() == []
        await again(world)
    async with working(world.settings):
        notifier = Notifier(world.settings)
        (row,) = await world.rows("SELECT destination_id FROM destinations")
        notifier.notify(world.tenant_id, [row["destination_id"]], reason="named")
        assert await world.finished(job.job_id) == "completed"
        await notifier.close()
    assert len(await world.sandbox.contacts()) == 5


async def test_another_named_network_does_not_help(world: World) -> None:
    await world.push(people(2))
    found = await held(world, unnamed(world.settings, "10.0.0.0/8"))
    assert "http://" in (found.detail or "")
    assert await untried(world)
    assert await world.sandbox.calls() == []


INWARD = (
    "127.0.0.1 ::1 ::ffff:127.0.0.1 10.1.2.3 169.254.169.254 fd00:ec2::254 fe80::1 64:ff9b::a00:1 "
    "64:ff9b:1::a00:1 2002:a00:1:: fec0::1 192.88.99.1 0.0.0.0"
)


@pytest.mark.parametrize("address", INWARD.split())
def test_the_guard_makes_no_socket_for_an_inward_address(address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    info = (family, socket.SOCK_STREAM, 6, "", (address, 443))
    for guard in (
        PublicOnlySocketFactory(),
        PublicOnlySocketFactory(words="no"),
        PublicOnlySocketFactory(parse_networks("172.16.0.0/12"), only=True),
    ):
        with pytest.raises(AddressRefused) as refused:
            guard(info)
        assert refused.value.errno == errno.EACCES
        assert address not in str(refused.value)


def test_without_tls_only_named_networks_are_called() -> None:
    public = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("1.1.1.1", 80))
    named = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.1", 80))
    plain = PublicOnlySocketFactory(parse_networks("10.0.0.0/8"), only=True)
    plain(named).close()
    with pytest.raises(AddressRefused):
        plain(public)
    PublicOnlySocketFactory()(public).close()


async def test_the_scheme_chooses_the_way_out() -> None:
    async with DestinationSessions(()) as egress:
        assert egress.to("https://crm.example") is not egress.to("http://crm.example")
        assert egress.to("https://crm.example") is egress.to("https://other.example/base")


async def test_what_went_wrong_is_told_without_address_and_port() -> None:
    """It would say what a name stands for in the operator's network, and which ports are open there."""

    async def noise(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"+PONG\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(noise, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    told = {}
    async with server, DestinationSessions(LOOPBACK) as egress:
        for url in (
            "https://127.0.0.1:1",
            f"https://127.0.0.1:{port}",
            f"http://127.0.0.1:{port}",
            "https://no-such-host.invalid",
            "https://10.0.0.1",
        ):
            answer = await send(egress.to(url), "POST", url, payload={}, headers={}, timeouts=Timeouts(1.0, 2.0))
            assert isinstance(answer, NoAnswer)
            told[url] = answer.detail
            assert not any(secret in answer.detail for secret in ("127.0", "10.0", str(port), "Error"))
            assert answer.refused == (url == "https://10.0.0.1")
    assert told["https://127.0.0.1:1"] == "the connection was refused"
    assert told["https://no-such-host.invalid"] == "its host name cannot be resolved"
