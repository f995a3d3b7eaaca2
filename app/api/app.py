"""The outermost layer: request ids, HEAD, the log line, and the last answer when all else failed."""

import asyncio
import re
from typing import Any, Final

import structlog
from litestar import Litestar
from litestar.routes import HTTPRoute

from app import telemetry
from app.auth.authorization import UNKNOWN_KEY, FirstSight
from app.errors import KeyBusy, KeyExpired, KeyReused, Overloaded, TrancheError, Unauthorized
from app.http import problems, request_context, session_cookie
from app.http.body.reader import Drains, Inbox
from app.http.cors import Cors
from app.http.dependencies import STATE_KEY, Resources
from app.http.operation import route_action, unroute_action
from app.http.rate_limits import AddressLimits, limit_fields
from app.http.refusal_limiter import Refusals
from app.http.security_headers import shield
from app.kit.postgres.fair_connections import Arrival, ConnectionQueue
from app.settings import Settings
from app.tracing import spans
from app.tracing.spans import Kind

log = structlog.get_logger()

_PROBES: Final = ("/health", "/metrics")
"""Of which nobody needs a trace."""
_GUARDED: Final = ("/v1/", "/v1:")
"""Where everything needs a key, or a token in the query."""
_KEY_REFUSALS: Final = {KeyBusy.code: "conflict", KeyReused.code: "mismatch", KeyExpired.code: "expired"}
_IMPORT: Final = route_action("/v1/any:bulk").removesuffix("any")
_PACED: Final = frozenset({401, 429})
"""Answers that a client may provoke without end, at no cost to itself."""
_CLOSING: Final = frozenset({401, 403, 408, 413, 429, 503})
"""Answers to a body of which nothing more is wanted: the connection ends with them."""


class Api(Litestar):
    """A Litestar application whose every answer carries `X-Request-ID` and leaves one line in the log.

    It routes on the path as it was sent, still percent-encoded: an encoded slash inside an id separates nothing.
    """

    __slots__ = ()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return await super().__call__(scope, receive, send)
        session_cookie.to_bearer(scope)
        noted = request_context.begin(scope, asyncio.get_running_loop().time())
        scope["path"] = route_action(noted.path.replace("%3A", ":").replace("%3a", ":"))
        inbox = Inbox(scope, receive)
        resources: Resources = self.state[STATE_KEY]
        cors, refusals = resources[Cors], resources[Refusals]
        shared = cors.answer_fields(scope)
        method = scope["method"]
        if method == "HEAD":
            scope["method"] = "GET"

        async def forward(message: Any) -> None:
            if message["type"] == "http.response.start":
                noted.status = message["status"]
                if noted.status in _PACED:
                    await resources[AddressLimits].charge(scope, noted.status)
                    await refusals.wait()
                fields = message["headers"]
                if inbox.open and noted.status in _CLOSING:
                    fields = [*fields, (b"connection", b"close")]
                if method == "OPTIONS" and "path_template" in scope:
                    # The framework answers for the one handler it found first.
                    allow = ", ".join(self._methods(scope["path_template"])).encode()
                    fields = [(k, allow if k == b"allow" else v) for k, v in fields]
                    fields += cors.preflight_fields(scope, allow)
                noted.replayed = any(name == b"idempotency-replayed" for name, _ in fields)
                fields = [*fields, *shared, *limit_fields(noted.limits)]
                fields.append((b"x-request-id", noted.request_id.encode()))
                message["headers"] = shield(fields, scope["scheme"])
            elif method == "HEAD":
                message = {**message, "body": b""}
            await send(message)

        arrival = self._arrive(scope, resources) if method == "POST" else None
        if isinstance(arrival, Overloaded):
            # Thousands a second of these leave the time to those who are served: no span, no line, one count for all.
            await inbox.skim()
            await _answer(arrival, noted, forward)
        else:
            try:
                await self._serve(scope, inbox, forward, method, noted)
            finally:
                if arrival is not None:
                    arrival.end()
        await inbox.drain(resources[Drains])
        return None

    async def _serve(
        self, scope: Any, inbox: Inbox, forward: Any, method: str, noted: request_context.Exchange
    ) -> None:
        """`method`: as it was sent; `scope` has GET for HEAD."""
        span = spans.span(method, Kind.SERVER, noted.trace, {"http.request.method": method})
        noted.trace = trace = span.context
        with span, structlog.contextvars.bound_contextvars(request_id=noted.request_id, trace_id=trace.trace_id):
            try:
                refusal = self._refuse(scope, self.state[STATE_KEY], method)
                if refusal is None:
                    await super().__call__(scope, inbox, forward)
                else:
                    noted.code = refusal.code
                    await inbox.skim()
                    await _answer(refusal, noted, forward)
            except Exception as error:
                log.error("request_failed", exc_info=error)
                if noted.status:
                    raise
                await _answer(TrancheError(), noted, forward)
            finally:
                route = unroute_action(scope.get("path_template") or telemetry.UNROUTED)
                _describe(span, method, route, noted)
                telemetry.emit(
                    telemetry.RequestServed(
                        method=method,
                        route=route,
                        status=noted.status,
                        milliseconds=round((asyncio.get_running_loop().time() - noted.started) * 1000, 2),
                        tenant_id=noted.tenant_id,
                        items=noted.items,
                        code=noted.code,
                        key=_judge_key(noted),
                        read=noted.read,
                        source=noted.source,
                    )
                )

    @staticmethod
    def _arrive(scope: Any, resources: Resources) -> Arrival | Overloaded | None:
        """An import, if it comes with a key that was good before: whether there is time for it. None: it is something
        else, or is checked first, or is a file, which workers read when there is time."""
        if not scope["path"].startswith(_IMPORT):
            return None
        sent, size = [], 0
        for name, value in scope["headers"]:
            if name == b"authorization":
                sent.append(value)
            elif name == b"content-length" and value.isdigit():
                size = int(value[:15])
        if len(sent) != 1 or size > resources[Settings].max_sync_bytes:
            return None
        scheme, _, secret = sent[0].decode("latin-1").strip().partition(" ")
        actor = resources[FirstSight].recall(secret.strip()) if scheme.lower() == "bearer" else None
        return None if actor is None else resources[ConnectionQueue].arrive(actor, size)

    @staticmethod
    def _refuse(scope: Any, resources: Resources, method: str) -> TrancheError | None:
        """What is wrong with a key at first sight, or with the address that it comes from. Nothing else is done for
        such a request, so that any number of them costs others little; whether a key that looks well is good, and may
        do this, its route finds out."""
        if not scope["path"].startswith(_GUARDED) or method == "OPTIONS":
            return None
        sent = [value for name, value in scope["headers"] if name == b"authorization"]
        scheme, _, secret = (sent[0] if sent else b"").decode("latin-1").strip().partition(" ")
        first_sight, addresses = resources[FirstSight], resources[AddressLimits]
        if addresses.blocked and not (len(sent) == 1 and first_sight.knows(secret.strip())):
            refusal = addresses.refusal(scope, request_context.exchange_of(scope))
            if refusal is not None:
                return refusal
        if not sent:
            return None if b"token=" in scope["query_string"] else Unauthorized()
        if len(sent) > 1:
            return None
        if scheme.lower() == "bearer" and first_sight.may_be_good(secret.strip()):
            return None
        request_context.exchange_of(scope).presented = True
        return Unauthorized("" if scheme.lower() != "bearer" else UNKNOWN_KEY)

    def _methods(self, template: str) -> list[str]:
        """What a resource knows, for `Allow`."""
        found = {
            method
            for route in self.routes
            if isinstance(route, HTTPRoute) and re.sub(r":\w+}", "}", route.path) == template
            for method in route.methods
        }
        return sorted({*found, "HEAD"} if "GET" in found else found)


def _judge_key(noted: request_context.Exchange) -> str | None:
    """Of what use the Idempotency-Key was; None: there was none, or the request left it as it was."""
    if noted.idempotency_key is None:
        return None
    if 200 <= noted.status < 300:
        return "replayed" if noted.replayed else "new"
    return _KEY_REFUSALS.get(noted.code or "")


def _describe(span: spans.Span, method: str, route: str, noted: request_context.Exchange) -> None:
    if route.startswith(_PROBES):
        span.drop()
    span.rename(f"{method} {route}")
    span.note(
        {
            "http.route": route,
            "http.response.status_code": noted.status,
            "tranche.request_id": noted.request_id,
            "tranche.tenant_id": noted.tenant_id,
            "tranche.items": noted.items,
            "error.type": noted.code,
        }
    )
    if noted.status >= 500:
        span.fail(noted.code or str(noted.status))


async def _answer(error: TrancheError, noted: request_context.Exchange, send: Any) -> None:
    status, headers, body = problems.render(error, noted.request_id, authenticated=noted.presented)
    fields = [(k.lower().encode(), v.encode()) for k, v in headers.items()]
    fields += [(b"content-type", problems.MEDIA_TYPE.encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body})
