"""Every call to the CRM passes here: faults strike, the vendor's handler works, the ledger books."""

import asyncio
import os
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, TypeVar

from aiohttp import web

from app.sandbox import faults
from app.sandbox.faults import Fault, Faults, Side, Status
from app.sandbox.ledger import Call, Ledger
from app.sandbox.records import Objects
from app.sandbox.token_issuer import TokenIssuer
from app.sandbox.vendor import Answer, Refusal, RefusedError, Route, Schema, Vendor, Visit

DEFAULT_PORTAL: Final = "default"
HUGE: Final = 9_000_000
RESET_AT_CLOSE: Final = struct.pack("ii", 1, 0)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
F = TypeVar("F", bound=Fault)


class DroppedError(Exception):
    """The connection is to end without an answer; `reset` ends it with a TCP reset."""

    def __init__(self, *, reset: bool) -> None:
        super().__init__()
        self.reset = reset


class Front:
    """One sandbox: a vendor, its records, and what is switched on against its clients."""

    def __init__(self, vendor: Vendor, ledger: Ledger, declared: Iterable[str] = ()) -> None:
        self.vendor = vendor
        self.schema = Schema(vendor.own_fields, declared)
        self.ledger = ledger
        self.faults = Faults()
        self.issuer = TokenIssuer(instance_url=vendor.says_instance)
        self.objects = Objects(vendor.make_id, vendor.default_object)
        self.objects.restore(ledger.latest())

    def handler(self, route: Route | None) -> Handler:
        """The aiohttp handler of a route; of `None`, for everything that is no route."""

        async def handle(request: web.Request) -> web.StreamResponse:
            headers = request.headers
            call = Call(
                method=request.method,
                path=request.path,
                on="other" if route is None else route.on,
                portal=_account_of(request),
                request_id=headers.get("X-Request-ID", ""),
                traceparent=headers.get("traceparent", ""),
                event_id=headers.get("Idempotency-Key", headers.get("X-Event-ID", "")),
            )
            self.ledger.begin(call)
            started = time.monotonic()
            try:
                answer = await self._work(request, route, call)
                call.seconds = time.monotonic() - started
                return await self._send(request, call, answer)
            except DroppedError as dropped:
                call.seconds = time.monotonic() - started
                self.ledger.settle(call)
                _end(request, reset=dropped.reset)
                return web.Response()  # aiohttp wants one; its connection is gone
            finally:
                self.ledger.end()

        return handle

    async def _work(self, request: web.Request, route: Route | None, call: Call) -> Answer:
        side: Side = "read" if route is not None and route.on == "read" else "write"
        if self.faults.active(faults.Refuse) is not None or self._strike(faults.Down, side, call) is not None:
            raise DroppedError(reset=True)
        body = await request.read()
        latency = self.faults.active(faults.Latency)
        if latency is not None and latency.strikes(side):
            await asyncio.sleep(latency.fault.latency + latency.jitter(latency.fault.jitter))
        answer = self.vendor.authenticate(request.headers)
        if answer is None and not self.issuer.accepts(self.vendor.token(request.headers)):
            answer = self.vendor.refuse(faults.Unauthorized())
        if answer is None and route is None:
            answer = self.vendor.not_found(request.path)
        if answer is None:
            answer = self._refuse(side, call)
        if answer is None and route is not None:
            answer = await self._accept(request, route, side, call, body)
        assert answer is not None
        call.status = answer.status
        done = answer.status < 300 and faults.SaysNo.kind not in call.faults
        garbage = self._strike(faults.Garbage, side, call) if done else None
        return answer if garbage is None else _spoil(answer, garbage)

    def _refuse(self, side: Side, call: Call) -> Answer | None:
        kinds: list[type[Refusal]] = [faults.Unauthorized, faults.RateLimit]
        for kind in [*kinds, faults.Lock] if self.vendor.locks_calls else kinds:
            refusal = self._strike(kind, side, call)
            if refusal is not None:
                return self.vendor.refuse(refusal)
        return None

    async def _accept(self, request: web.Request, route: Route, side: Side, call: Call, body: bytes) -> Answer:
        """The call is accepted: whatever goes wrong now is between the work and its answer."""
        broken = self.faults.active(faults.BrokenAccount)
        if broken is not None and call.portal.endswith(f"+{broken.fault.account}") and broken.strikes(side):
            call.hit(faults.BrokenAccount.kind)
            return self.vendor.refuse(Status(code=broken.fault.code))
        status = self._strike(Status, side, call)
        if status is not None and not status.apply:
            return self.vendor.refuse(status)
        if self._strike(faults.DropBefore, side, call) is not None:
            raise DroppedError(reset=False)
        no = self._strike(faults.SaysNo, side, call)
        if no is not None:
            return _say_no(no)
        slow = self._strike(faults.Slow, side, call)
        if slow is not None and slow.when == "before":
            await asyncio.sleep(slow.latency)
        visit = Visit(
            call=call,
            portal=call.portal,
            object=request.match_info.get("object", self.vendor.default_object),
            path=request.match_info,
            query=request.query,
            headers=request.headers,
            body=body,
            ledger=self.ledger,
            objects=self.objects,
            faults=self.faults,
            schema=self.schema,
            locked=not self.vendor.locks_calls and self._strike(faults.Lock, side, call) is not None,
        )
        try:
            answer = route.handle(visit)
        except RefusedError as refused:
            answer = refused.answer
        self.ledger.apply(visit.effects, visit.kept)
        if status is not None:
            answer = self.vendor.refuse(status)
        call.status = answer.status
        if slow is not None and slow.when == "after":
            await asyncio.sleep(slow.latency)
        if self._strike(faults.AcceptThenDrop, side, call) is not None:
            raise DroppedError(reset=False)
        return answer

    def _strike(self, cls: type[F], side: Side, call: Call) -> F | None:
        fault = self.faults.strike(cls, side)
        if fault is not None:
            call.hit(cls.kind)
        return fault

    async def _send(self, request: web.Request, call: Call, answer: Answer) -> web.StreamResponse:
        open_still = request.transport is not None and not request.transport.is_closing()
        call.answered = open_still and not answer.cut
        self.ledger.settle(call)
        response = web.StreamResponse(status=answer.status, headers=answer.headers)
        response.content_type = answer.content_type
        response.content_length = len(answer.body)
        try:
            await response.prepare(request)
            if request.method == "HEAD":  # the fields alone (RFC 9110, 9.3.2)
                await response.write_eof()
                return response
            if answer.cut:
                await response.write(answer.body[: len(answer.body) // 2])
                _end(request, reset=False)
                return response
            await response.write(answer.body)
            await response.write_eof()
        except ConnectionError:
            call.answered = False
        return response


def _account_of(request: web.Request) -> str:
    """The account of a call: by its path, and where a token ends with `@NAME`, by that, as it is at a real CRM."""
    portal = request.match_info.get("portal", DEFAULT_PORTAL)
    named = request.headers.get("Authorization", "").partition("@")[2]
    return f"{portal}+{named}" if named else portal


def _end(request: web.Request, *, reset: bool) -> None:
    """Close the connection of a request under it; `reset` makes the peer see a TCP reset."""
    transport = request.transport
    if transport is None:
        return
    if reset:
        with socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno())) as twin:
            twin.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)
        transport.abort()
    else:
        transport.close()


def _say_no(fault: faults.SaysNo) -> Answer:
    """As services do that answer 2xx to everything."""
    bodies = {
        "ok_false": b'{"ok":false,"error":"internal_error"}',
        "errors": b'{"data":null,"errors":[{"message":"The contacts could not be stored."}]}',
        "count": b'{"successCount":0,"failCount":1}',
        "task": b'{"taskUid":7,"status":"enqueued"}',
    }
    return Answer(status=202 if fault.mode == "task" else 200, body=bodies[fault.mode])


def _spoil(answer: Answer, fault: faults.Garbage) -> Answer:
    """The same status with a body that cannot be used."""
    half = answer.body[: len(answer.body) // 2]
    bodies = {
        "truncated": half,
        "cut": answer.body,
        "html": b"<html><body>All is well.</body></html>",
        "empty": b"",
        "shape": b'{"status":"COMPLETE","results":{"of":"another kind"}}',
        "deep": b"[" * 100_000,
        "huge": b'{"status":"COMPLETE","results":[],"padding":"' + b" " * HUGE + b'"}',
    }
    spoiled = bodies[fault.mode]
    content_type = "text/html" if fault.mode == "html" else answer.content_type
    return Answer(status=answer.status, body=spoiled, content_type=content_type, cut=fault.mode == "cut")
