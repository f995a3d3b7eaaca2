"""One connection to a broker: requests and answers of Kafka's protocol (kafka.apache.org/protocol), one at a time.

What they say is written and read by aiokafka's classes; its own connections are not used. They connect by name, read
frames of any size, and compute whatever hash a server asks for, and a broker is whatever a tenant names.
"""

import asyncio
import struct
from io import BytesIO
from typing import Any, Final

from aiokafka.protocol.admin import ApiVersionRequest_v0, SaslAuthenticateRequest_v0, SaslHandShakeRequest_v1

from jobs.crm.kafka.codes import SASL_REFUSED, said
from jobs.crm.scram import Scram

MAX_ANSWER_BYTES: Final = 1_000_000
"""Of one answer: the metadata of one topic is the longest."""
CLIENT_ID: Final = "tranche"
"""What quotas and logs of brokers know us by."""
_HASHES: Final = {"SCRAM-SHA-256": "sha256", "SCRAM-SHA-512": "sha512"}

Said = dict[str, Any]
"""An answer, by the names of its fields."""


class MalformedError(Exception):
    """What came is not this protocol, or more than anybody needs; in words for people."""


class RefusedError(Exception):
    """The broker cannot be used, or lets nobody in; in words for people."""


class Wire:
    """A connection. Besides its own errors its methods raise whatever a stream raises, and `ValueError` for what cannot
    be read."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, encrypted: bool) -> None:
        self._reader = reader
        self._writer = writer
        self.encrypted = encrypted
        self._versions: dict[int, tuple[int, int]] = {}
        self._last = 0

    async def start(self) -> None:
        """Learn which versions of requests it knows."""
        answer = await self.ask(ApiVersionRequest_v0())
        if answer["error_code"]:
            raise MalformedError(f"it does not say which requests it knows: {said(answer['error_code'])}")
        listed = answer["api_versions"] or ()
        self._versions = {each["api_key"]: (each["min_version"], each["max_version"]) for each in listed}

    async def log_in(self, mechanism: str, user: str, password: str) -> None:
        """By SASL (KIP-43, KIP-152). Raises `RefusedError`: it does not let us in."""
        answer = await self.ask(SaslHandShakeRequest_v1(mechanism))
        if answer["error_code"]:
            offered = ", ".join(str(name) for name in answer["enabled_mechanisms"] or ()) or "none"
            words = f"{said(answer['error_code'])}; it offers {offered}, and the option sasl_mechanism is {mechanism}"
            raise RefusedError(words)
        if mechanism == "PLAIN":
            await self._authenticate(f"\0{user}\0{password}".encode())
            return
        scram = Scram(password.encode(), user=user, algorithm=_HASHES[mechanism])  # type: ignore[arg-type]
        first = await self._authenticate(scram.first())
        scram.verify(await self._authenticate(scram.last(first)))

    async def _authenticate(self, token: bytes) -> bytes:
        answer = await self.ask(SaslAuthenticateRequest_v0(token))
        if answer["error_code"]:
            code = answer["error_code"]
            message = answer["error_message"] if code == SASL_REFUSED else None
            raise RefusedError(said(code, message))
        return bytes(answer["sasl_auth_bytes"] or b"")

    def choose(self, *requests: Any) -> Any:
        """The class of the newest version that both sides know; `requests`: from the oldest to the newest.
        Raises `RefusedError`: there is none."""
        least, most = self._versions.get(requests[0].API_KEY, (0, -1))
        for request in reversed(requests):
            if least <= request.API_VERSION <= most:
                return request
        raise RefusedError("the broker speaks other versions of Kafka's protocol; it must be Kafka 0.11 or newer")

    async def ask(self, request: Any) -> Said:
        """One exchange; `request`: a `RequestStruct` of aiokafka."""
        try:
            self._last = (self._last + 1) % 2**31
            head = request.build_request_header(correlation_id=self._last, client_id=CLIENT_ID)
            message = head.encode() + request.encode()
            self._writer.write(struct.pack("!i", len(message)) + message)
            await self._writer.drain()
            return self._read(request, await self._receive())
        except BaseException:
            self.abort()  # whatever comes now would be taken for another answer
            raise

    async def _receive(self) -> bytes:
        (length,) = struct.unpack("!i", await self._reader.readexactly(4))
        if not 0 < length <= MAX_ANSWER_BYTES:
            raise MalformedError(f"its answer is not Kafka's protocol, or larger than {MAX_ANSWER_BYTES} bytes")
        return await self._reader.readexactly(length)

    def _read(self, request: Any, content: bytes) -> Said:
        answer = BytesIO(content)
        if request.parse_response_header(answer).correlation_id != self._last:
            raise MalformedError("its answer belongs to another request")
        found: Said = request.RESPONSE_TYPE.decode(answer).to_object()
        return found

    @property
    def closed(self) -> bool:
        return self._writer.is_closing() or self._reader.at_eof() or self._reader.exception() is not None

    def abort(self) -> None:
        self._writer.transport.abort()
