"""The sandbox's own routes, under `/__sandbox__/`: evidence to read, faults to switch.

| route | what it does |
|---|---|
| `GET ledger` | `{"effects","total"}`: the newest 200,000; `?since=SEQ` only later ones, `?portal=` one account's |
| `GET calls` | `{"calls","total","in_flight","max_concurrent"}`: the newest 50,000; `?since=CALL` |
| `GET idempotency` | `{"keys":[{"key","calls","replayed"}],"replayed"}`: calls that had a key, or an event id |
| `GET contacts` | `{"contacts","total"}`; `?portal=`, and `?object=` other records than contacts |
| `POST contacts` | a user makes or edits a record: `{"key_property","key","properties","portal"}`; `?object=` |
| `DELETE contacts/ID` | a user takes a record away; `?portal=`, `?object=` |
| `GET faults` | `{"faults":{kind: parameters + applied, left, seconds_left}}` |
| `PUT faults` | `{kind: parameters}` becomes the whole set; `PUT faults/KIND` sets one |
| `DELETE faults` | all off; `DELETE faults/KIND` one |
| `GET schema` | `{"own","declared"}`: fields that every account has, and those that were declared; `?object=` |
| `PUT schema` | `{"declared":["tranche_id","companies.tier"]}` becomes all that is declared; `*` is every name |
| `GET oauth` | what the token endpoint did: `{"issued","refused","expired_calls","refresh_token"}` |
| `PUT oauth` | the application that may ask for tokens (`app.sandbox.token_issuer.Client`); null: none |
| `POST oauth/revoke` | its access tokens are good no more; `?refresh=1`: nor what renews them |
| `POST reset` | everything as new; `?only=` any of `ledger,contacts,faults,concurrency` |
| `GET health` | `{"status":"ok","kind"}` |

A row of the ledger and a record name their `object`: `contacts` or `companies`, `Contact` or `Account`, and for a
service of one's own the name of the collection. `contacts` of a reset are the records of all objects.

No token is asked for. A wrong request is answered 400 with `{"error"}`.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from aiohttp import web

from app.sandbox.faults import FaultError, Refuse, parse
from app.sandbox.front import DEFAULT_PORTAL, Front
from app.sandbox.ledger import Ledger, timestamp
from app.sandbox.records import Record, Records, effect_of
from app.sandbox.token_issuer import Client
from app.sandbox.vendor import Schema

PREFIX: Final = "/__sandbox__"
PARTS: Final = ("ledger", "contacts", "faults", "concurrency")

_USER: Final = "user"
"""Of a CRM: it had records before an import, and somebody types into their fields later. No call does."""

_encode: Final = msgspec.json.Encoder().encode


class Edit(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A record, by a property with unique values, and what is typed into it; `null` empties a field."""

    portal: str = "default"
    key_property: str
    key: str
    properties: dict[str, Any] = {}


class Port:
    """The listening socket, which can be closed for a while and opened again on the same port."""

    def __init__(self, runner: web.AppRunner, host: str, port: int) -> None:
        self._runner = runner
        self._host = host
        self.number = port
        self._site: web.TCPSite | None = None
        self._timer: asyncio.Task[None] | None = None

    async def open(self) -> None:
        self._site = web.TCPSite(self._runner, self._host, self.number, backlog=1024)
        await self._site.start()
        self.number = self._site.port

    async def refuse(self, seconds: float) -> None:
        """Close the port; `seconds` later it is open again."""
        if self._timer is not None:
            self._timer.cancel()
        if self._site is not None:
            await self._site.stop()
            self._site = None
        for connection in self._runner.server.connections if self._runner.server is not None else ():
            connection.close()  # once its request is answered, and at once where it is idle
        self._timer = asyncio.create_task(self._reopen_after(seconds))

    async def reopen(self) -> None:
        """Open the port now, if it is closed."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._site is None:
            await self.open()

    async def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    async def _reopen_after(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self._timer = None
        await self.open()


class Control:
    """The handlers; `port` is set by who opens it."""

    port: Port

    def __init__(self, front: Front, kind: str) -> None:
        self._front = front
        self._kind = kind

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get(f"{PREFIX}/ledger", _safely(self.ledger)),
            web.get(f"{PREFIX}/calls", _safely(self.calls)),
            web.get(f"{PREFIX}/idempotency", _safely(self.idempotency)),
            web.get(f"{PREFIX}/contacts", _safely(self.contacts)),
            web.post(f"{PREFIX}/contacts", _safely(self.edit_contact)),
            web.delete(f"{PREFIX}/contacts/{{id}}", _safely(self.delete_contact)),
            web.get(f"{PREFIX}/faults", _safely(self.faults)),
            web.put(f"{PREFIX}/faults", _safely(self.replace_faults)),
            web.put(f"{PREFIX}/faults/{{kind}}", _safely(self.set_fault)),
            web.delete(f"{PREFIX}/faults", _safely(self.clear_faults)),
            web.delete(f"{PREFIX}/faults/{{kind}}", _safely(self.clear_faults)),
            web.get(f"{PREFIX}/schema", _safely(self.schema)),
            web.put(f"{PREFIX}/schema", _safely(self.declare)),
            web.get(f"{PREFIX}/oauth", _safely(self.oauth)),
            web.put(f"{PREFIX}/oauth", _safely(self.set_oauth)),
            web.post(f"{PREFIX}/oauth/revoke", _safely(self.revoke)),
            web.post(f"{PREFIX}/reset", _safely(self.reset)),
            web.get(f"{PREFIX}/health", _safely(self.health)),
        ]

    async def health(self, _: web.Request) -> object:
        return {"status": "ok", "kind": self._kind}

    async def ledger(self, request: web.Request) -> object:
        ledger = self._front.ledger
        rows = ledger.effects(_since(request), request.query.get("portal"))
        return {"effects": rows, "total": ledger.effect_count}

    async def calls(self, request: web.Request) -> object:
        ledger = self._front.ledger
        since = _since(request)
        return {
            "calls": [call for call in ledger.calls if call.call > since],
            "total": ledger.call_count,
            "in_flight": ledger.in_flight,
            "max_concurrent": ledger.max_concurrent,
        }

    async def idempotency(self, request: web.Request) -> object:
        keys: dict[str, dict[str, Any]] = {}
        for call in self._front.ledger.calls:
            if call.event_id and call.on == "write":
                row = keys.setdefault(call.event_id, {"key": call.event_id, "calls": 0, "replayed": 0})
                row["calls"] += 1
                row["replayed"] += call.replayed
        return {"keys": list(keys.values()), "replayed": sum(row["replayed"] for row in keys.values())}

    async def contacts(self, request: web.Request) -> object:
        portal = request.query.get("portal")
        records = [r for r in self._records(request) if portal in (None, r.portal)]
        return {"contacts": records, "total": len(records)}

    async def edit_contact(self, request: web.Request) -> object:
        wanted = msgspec.json.decode(await request.read(), type=Edit)
        return {"contact": _edit(self._records(request), self._front.ledger, wanted)}

    async def delete_contact(self, request: web.Request) -> object:
        portal = request.query.get("portal", DEFAULT_PORTAL)
        return {"deleted": _delete(self._records(request), self._front.ledger, portal, request.match_info["id"])}

    async def faults(self, _: web.Request) -> object:
        return {"faults": self._front.faults.show()}

    async def replace_faults(self, request: web.Request) -> object:
        wanted = await _body(request)
        if not isinstance(wanted, dict):
            raise FaultError("an object {kind: parameters} is expected")
        for kind, parameters in wanted.items():
            parse(kind, parameters)  # all or none
        await self._clear(None)
        for kind, parameters in wanted.items():
            await self._set(kind, parameters)
        return {"faults": self._front.faults.show()}

    async def set_fault(self, request: web.Request) -> object:
        await self._set(request.match_info["kind"], await _body(request))
        return {"faults": self._front.faults.show()}

    async def clear_faults(self, request: web.Request) -> object:
        await self._clear(request.match_info.get("kind"))
        return {"faults": self._front.faults.show()}

    async def schema(self, request: web.Request) -> object:
        schema = self._front.schema
        return {"own": sorted(schema.own(self._object(request))), "declared": sorted(schema.declared)}

    async def declare(self, request: web.Request) -> object:
        wanted = await _body(request)
        names = wanted.get("declared") if isinstance(wanted, dict) else None
        if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
            raise ValueError('{"declared": [names of fields]} is expected')
        self._front.schema = Schema(self._front.vendor.own_fields, names)
        return await self.schema(request)

    async def oauth(self, _: web.Request) -> object:
        return self._front.issuer.show()

    async def set_oauth(self, request: web.Request) -> object:
        self._front.issuer.configure(msgspec.json.decode(await request.read(), type=Client | None))
        return self._front.issuer.show()

    async def revoke(self, request: web.Request) -> object:
        self._front.issuer.revoke(refresh=request.query.get("refresh") == "1")
        return self._front.issuer.show()

    async def reset(self, request: web.Request) -> object:
        only = set(request.query.get("only", ",".join(PARTS)).split(","))
        if not only <= set(PARTS):
            raise FaultError(f"only: any of {','.join(PARTS)}")
        if "faults" in only:
            await self._clear(None)
        if "ledger" in only:
            self._front.ledger.clear()
        if "contacts" in only:
            self._front.objects.clear()
        if "concurrency" in only:
            self._front.ledger.max_concurrent = self._front.ledger.in_flight
        return {"reset": sorted(only)}

    def _object(self, request: web.Request) -> str:
        vendor = self._front.vendor
        name = request.query.get("object", vendor.default_object)
        if not vendor.own_fields(name):
            raise ValueError(f"there is no object {name!r}")
        return name

    def _records(self, request: web.Request) -> Records:
        return self._front.objects.of(self._object(request))

    async def _set(self, kind: str, parameters: object) -> None:
        fault = self._front.faults.set(kind, parameters)
        if isinstance(fault, Refuse) and fault.seconds is not None:
            await self.port.refuse(fault.seconds)

    async def _clear(self, kind: str | None) -> None:
        self._front.faults.clear(kind)
        if kind in (None, Refuse.kind):
            await self.port.reopen()


def _safely(
    handle: Callable[[web.Request], Awaitable[object]],
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handler(request: web.Request) -> web.StreamResponse:
        try:
            status, answer = 200, await handle(request)
        except ValueError as error:
            status, answer = 400, {"error": str(error)}
        response = web.Response(status=status, body=_encode(answer), content_type="application/json")
        if request.method == "PUT":
            response.force_close()  # or the client would reuse this connection while the port is refused
        return response

    return handler


def _edit(records: Records, ledger: Ledger, wanted: Edit) -> Record:
    """Make the record if there is none, else set these properties of it; the ledger has a row of it either way."""
    at = timestamp()
    record = records.find(wanted.portal, wanted.key, wanted.key_property)
    created = record is None
    if record is None:
        record, *_ = records.upsert(wanted.portal, wanted.key_property, wanted.key, wanted.properties, at)
        changed = True
    else:
        changed = records.edit(record, wanted.properties, at)
    ledger.apply([effect_of(record, at, changed=changed, created=created, by=_USER)])
    return record


def _delete(records: Records, ledger: Ledger, portal: str, record_id: str) -> bool:
    """Take a record away; false: there is none with this id."""
    record = records.delete(portal, record_id)
    if record is not None:
        ledger.apply([effect_of(record, timestamp(), deleted=True, by=_USER)])
    return record is not None


async def _body(request: web.Request) -> Any:
    raw = await request.read()
    return msgspec.json.decode(raw) if raw.strip() else None


def _since(request: web.Request) -> int:
    return max(0, int(request.query.get("since", "0")))
