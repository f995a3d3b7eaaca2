"""The proxy of `tests.contract.kafka`: a broker that hands on what it is asked, with the faults of a network."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import os
import ssl
import struct
from io import BytesIO
from typing import Any, Final

import msgspec
from aiokafka.protocol.metadata import MetadataResponse_v5
from aiokafka.protocol.produce import ProduceRequest_v8, ProduceResponse_v8
from aiokafka.record.memory_records import MemoryRecords

from tests.contract.fault_proxy import FaultProxy, reset

PRODUCE, METADATA, HANDSHAKE, AUTHENTICATE, API_VERSIONS = 0, 3, 17, 36, 18
REFUSED, TOO_FEW_REPLICAS, WRONG_PASSWORD, OTHER_MECHANISM = 87, 19, 58, 33
_GARBAGE: Final = {
    "truncated": b"\0\0\0\x64\0\0",
    "cut": b"\0\0",
    "html": b"<html><body>All is well.</body></html>",
    "empty": b"",
    "shape": b"\0\0\0\x08\0\0\0\0\0\0\0\0",
    "deep": b"[" * 10_000,
    "huge": b"\x7f\xff\xff\xff" + b" " * 9_000_000,
}


class Proxy(FaultProxy):
    """Between an adapter and the brokers."""

    def __init__(
        self, host: str, port: int, *, user: str, password: str, tls: ssl.SSLContext | None = None, sasl: bool = True
    ) -> None:
        super().__init__(host, port, tls)
        self._user, self._password = user, password
        self.sasl = sasl
        """Whether it asks for a login."""
        self.mechanisms = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]
        self.iterations = 4_096
        self.codes: dict[int, list[int]] = {}
        """By kind of request: codes that it is answered, one at a time, instead of being handed on."""
        self.brokers: list[tuple[int, str, int, None]] | None = None
        """Those that metadata name; `None`: the proxy alone."""
        self.asked: list[int] = []
        """Kinds of all requests."""
        self.throttle = 0
        self._seen: set[tuple[Any, ...]] = set()
        """Numbers of batches that were appended."""

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, upstream = await asyncio.open_connection(*self._target)
        try:
            await _Connection(self, reader, writer, answers, upstream).run()
        finally:
            upstream.close()

    def count(self, batch: Any, partition: int, topic: str) -> bool:
        """Whether a batch is new."""
        number = topic, partition, batch.producer_id, batch.producer_epoch, batch.base_sequence
        new = number not in self._seen
        self._seen.add(number)
        return new


class _Connection:
    def __init__(
        self,
        proxy: Proxy,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        answers: asyncio.StreamReader,
        upstream: asyncio.StreamWriter,
    ) -> None:
        self._proxy = proxy
        self._reader, self._writer = reader, writer
        self._answers, self._upstream = answers, upstream
        self._login = _Login(proxy._user, proxy._password)
        self._known = not proxy.sasl

    async def run(self) -> None:
        while True:
            request = await _frame(self._reader)
            kind, version = struct.unpack_from("!hh", request)
            (length,) = struct.unpack_from("!h", request, 8)
            head, body = request[: 10 + max(length, 0)], request[10 + max(length, 0) :]
            self._proxy.asked.append(kind)
            call: dict[str, Any] = {"on": "write" if kind == PRODUCE else "read", "faults": []}
            if kind not in (API_VERSIONS, HANDSHAKE, AUTHENTICATE) and not self._known:
                return None
            if kind == API_VERSIONS and self._proxy.strike("drop_before", "read", call) is not None:
                return None
            if kind in (API_VERSIONS, METADATA) and self._proxy.strike("down", "read", call) is not None:
                return reset(self._writer)
            if codes := self._proxy.codes.get(kind):
                answer = _coded(kind, codes.pop(0), body)
            elif kind == HANDSHAKE:
                answer = self._shake(body)
            elif kind == AUTHENTICATE:
                answer = self._authenticate(body)
            elif kind == PRODUCE:
                assert version == 8
                produced = await self._produce(head, body, call)
                if produced is None:
                    return None
                answer = produced
            else:
                answer = await self._pass(head + body)
                if kind == METADATA:
                    answer = self._rename(answer)
            self._writer.write(struct.pack("!i", len(answer) + 4) + request[4:8] + answer)
            await self._writer.drain()
            call["answered"] = True

    async def _pass(self, request: bytes) -> bytes:
        self._upstream.write(struct.pack("!i", len(request)) + request)
        return (await _frame(self._answers))[4:]

    def _rename(self, answer: bytes) -> bytes:
        found = MetadataResponse_v5.decode(BytesIO(answer))
        brokers = self._proxy.brokers
        found.brokers = [(1, "127.0.0.1", self._proxy.port, None)] if brokers is None else brokers
        return bytes(found.encode())

    async def _produce(self, head: bytes, body: bytes, call: dict[str, Any]) -> bytes | None:
        proxy = self._proxy
        request = ProduceRequest_v8.decode(BytesIO(body))
        [(topic, partitions)] = request.topics
        batches = {number: _read(content) for number, content in partitions}
        records = [record for batch in batches.values() for record in batch[1]]
        headers = {name: value.decode() for name, value in records[0].headers}
        call |= {"request_id": headers["x-request-id"], "event_id": headers["x-event-id"], "n": len(records)}
        call |= {"batches": dict(partitions), "answered": False, "acks": request.required_acks}
        proxy.calls.append(call)
        proxy.in_flight += 1
        proxy.max_concurrent = max(proxy.max_concurrent, proxy.in_flight)
        try:
            if proxy.strike("down", "write", call) is not None:
                reset(self._writer)
                return None
            if proxy.strike("drop_before", "write", call) is not None:
                return None
            refused = {number: self._refused(number, batch[1]) for number, batch in batches.items()}
            new = [
                (number, content)
                for number, content in partitions
                if refused[number] is None and proxy.count(batches[number][0], number, topic)
            ]
            told = {number: said for number, said in refused.items() if said is not None}
            if new:
                request.topics = [(topic, new)]
                passed = ProduceResponse_v8.decode(BytesIO(await self._pass(head + request.encode())))
                told |= {each[0]: each for _, found in passed.topics for each in found}
            for number in batches.keys() - told.keys():
                told[number] = (number, 0, -1, -1, -1, [], None)
            for kind in ("latency", "slow"):
                if (late := proxy.strike(kind, "write", call)) is not None:
                    await asyncio.sleep(late["latency"])
            if proxy.strike("accept_then_drop", "write", call) is not None:
                return None
            if (garbage := proxy.strike("garbage", "write", call)) is not None:
                self._writer.write(_GARBAGE[garbage["mode"]])
                return None
            if (omit := proxy.faults.get("omit")) and omit["on"] == "write":
                omitted = {n for n, (_, found) in batches.items() if {r.key.decode() for r in found} & {*omit["keys"]}}
                told = {number: said for number, said in told.items() if number not in omitted}
            return bytes(ProduceResponse_v8([(topic, list(told.values()))], proxy.throttle).encode())
        finally:
            proxy.in_flight -= 1

    def _refused(self, number: int, records: list[Any]) -> tuple[Any, ...] | None:
        """What a partition is answered instead of being appended to."""
        fault = self._proxy.faults.get("reject")
        if fault is None or fault.get("on") == "read":
            return None
        keys, emails, message = fault.get("keys", []), fault.get("emails", []), fault.get("message", "no")
        faulty = [
            n
            for n, record in enumerate(records)
            if not keys + emails
            or record.key.decode() in keys
            or (record.value is not None and msgspec.json.decode(record.value).get("email") in emails)
        ]
        if not faulty:
            return None
        if fault.get("passing"):
            return number, TOO_FEW_REPLICAS, -1, -1, -1, [], message
        if "code" in fault:  # one that does not say whom it is about
            return number, fault["code"], -1, -1, -1, [], message
        return number, REFUSED, -1, -1, -1, [(n, message) for n in faulty], "one or more records are refused"

    def _shake(self, body: bytes) -> bytes:
        mechanism = body[2:].decode()
        self._login.mechanism = mechanism
        self._login.iterations = self._proxy.iterations
        offered = self._proxy.mechanisms
        code = 0 if mechanism in offered else OTHER_MECHANISM
        names = b"".join(struct.pack("!h", len(name)) + name.encode() for name in offered)
        return struct.pack("!hi", code, len(offered)) + names

    def _authenticate(self, body: bytes) -> bytes:
        said = self._login.step(body[4:])
        self._known = self._known or self._login.done
        code, words = (0, b"") if said is not None else (WRONG_PASSWORD, b"Authentication failed")
        token = said or b""
        return struct.pack("!hh", code, len(words)) + words + struct.pack("!i", len(token)) + token


class _Login:
    """The server's side of PLAIN (RFC 4616) and SCRAM (RFC 5802)."""

    def __init__(self, user: str, password: str) -> None:
        self._user, self._password = user, password
        self.mechanism = ""
        self.iterations = 0
        self.done = False
        self._said: list[bytes] = []
        self._salt = os.urandom(12)

    def step(self, token: bytes) -> bytes | None:
        """`None`: it is not them."""
        if self.mechanism == "PLAIN":
            self.done = token == f"\0{self._user}\0{self._password}".encode()
            return b"" if self.done else None
        return self._begin(token) if not self._said else self._end(token)

    def _begin(self, token: bytes) -> bytes:
        bare = token.removeprefix(b"n,,")
        nonce = dict(part.split(b"=", 1) for part in bare.split(b","))[b"r"]
        first = b"r=%ss,s=%s,i=%d" % (nonce, base64.b64encode(self._salt), self.iterations)
        self._said = [bare, first]
        return first

    def _end(self, token: bytes) -> bytes | None:
        digest = self.mechanism.removeprefix("SCRAM-").replace("-", "").lower()
        final, _, proof = token.rpartition(b",p=")
        salted = hashlib.pbkdf2_hmac(digest, self._password.encode(), self._salt, self.iterations)
        key = hmac.digest(salted, b"Client Key", digest)
        signed = b",".join((*self._said, final))
        signature = hmac.digest(hashlib.new(digest, key).digest(), signed, digest)
        wanted = bytes(a ^ b for a, b in zip(key, signature, strict=True))
        name = self._said[0].startswith(b"n=" + self._user.encode() + b",")
        self.done = name and base64.b64decode(proof) == wanted
        if not self.done:
            return None
        return b"v=" + base64.b64encode(hmac.digest(hmac.digest(salted, b"Server Key", digest), signed, digest))


async def _frame(reader: asyncio.StreamReader) -> bytes:
    (length,) = struct.unpack("!i", await reader.readexactly(4))
    return await reader.readexactly(length)


def _read(content: bytes) -> tuple[Any, list[Any]]:
    """A batch and its records."""
    batch = MemoryRecords(content).next_batch()
    assert batch.validate_crc()
    return batch, list(batch)


def _coded(kind: int, code: int, body: bytes) -> bytes:
    """An answer that says no more than a code."""
    if kind == PRODUCE:
        [(topic, partitions)] = ProduceRequest_v8.decode(BytesIO(body)).topics
        told = [(number, code, -1, -1, -1, [], None) for number, _ in partitions]
        return bytes(ProduceResponse_v8([(topic, told)], 0).encode())
    if kind == METADATA:
        topic = body[6 : 6 + struct.unpack_from("!h", body, 4)[0]].decode()
        return bytes(MetadataResponse_v5(0, [], None, 0, [(code, topic, False, [])]).encode())
    return struct.pack("!ihqh", 0, code, -1, -1)  # of a producer's identity
