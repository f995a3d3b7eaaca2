"""Cross-origin requests of browsers (WHATWG Fetch, section 3.2): which pages may call this API.

An API key goes in a header that a browser never sends by itself, so no page can act for somebody who gave it no key;
`Access-Control-Allow-Credentials` is never sent.
"""

from typing import Any, Final

from app.settings import parse_origins

_ANY: Final = "*"
_MAX_AGE: Final = 7_200
"""Seconds for which a browser remembers a preflight; Chromium keeps none for longer."""
_REQUEST_FIELDS: Final = """
    Accept Authorization Content-Encoding Content-Type Idempotency-Key If-None-Match Last-Event-ID Prefer
    X-Request-ID traceparent tracestate
""".split()
_EXPOSED: Final = """
    Accept-Encoding Accept-Post Allow Content-Disposition ETag Idempotency-Key Idempotency-Replayed Link
    Location Preference-Applied RateLimit RateLimit-Policy Retry-After WWW-Authenticate Warning X-RateLimit-Limit
    X-RateLimit-Remaining X-RateLimit-Reset X-Request-ID
""".split()
_VARY: Final = (b"vary", b"Origin")

_Fields = list[tuple[bytes, bytes]]


class Cors:
    """Answers for the origins that an operator named; without any, nothing is said about origins at all."""

    def __init__(self, origins: str) -> None:
        self._origins = parse_origins(origins)

    def answer_fields(self, scope: Any) -> _Fields:
        """What every answer to this request carries."""
        if not self._origins:
            return []
        origin = self._allowed(scope)
        if origin is None:
            return [_VARY]
        exposed = ", ".join(_EXPOSED).encode()
        return [_VARY, (b"access-control-allow-origin", origin), (b"access-control-expose-headers", exposed)]

    def preflight_fields(self, scope: Any, methods: bytes) -> _Fields:
        """What the answer to a preflight carries beside; nothing where it is none, or the page is not allowed."""
        asked = any(name == b"access-control-request-method" for name, _ in scope["headers"])
        if not asked or self._allowed(scope) is None:
            return []
        return [
            (b"access-control-allow-methods", methods),
            (b"access-control-allow-headers", ", ".join(_REQUEST_FIELDS).encode()),
            (b"access-control-max-age", str(_MAX_AGE).encode()),
        ]

    def _allowed(self, scope: Any) -> bytes | None:
        """The origin to name in the answer."""
        sent = [value for name, value in scope["headers"] if name == b"origin"]
        if len(sent) != 1:
            return None
        if _ANY in self._origins:
            return b"*"
        return sent[0] if sent[0].decode("latin-1") in self._origins else None
