"""A harmless look at a service of which nothing is known but HTTP.

With `read` or `read_path` it is a read of a key that nobody has, as deliveries read. Without it HEAD asks for the path
that records are sent to, or GET where HEAD is not known. Both are safe by RFC 9110, 9.2.1, and show at least whether
the service is there and whether it refuses the token. Whether it takes records only a canary shows.
"""

from typing import Final

from app.destinations.http_options import HttpOptions
from app.destinations.testing.rules import Step
from jobs.crm.answers import NOBODY, Judge, refused, step
from jobs.crm.exchange import Connection
from jobs.crm.http.reading import RecordReader
from jobs.crm.http.requests import CannotRequestError, Requests
from jobs.crm.port import Headers, SentRecord

_ASK_GET: Final = frozenset({404, 405, 501})
_CANARY: Final = "Whether it takes records only a test with the canary shows."
_SAMPLE: Final = SentRecord(
    record_id=NOBODY, version=1, fields={"email": f"{NOBODY}@example.com"}, remote_id=NOBODY, deleted=True
)


class Check:
    """Of one destination."""

    def __init__(
        self, connection: Connection, judge: Judge, options: HttpOptions, requests: Requests, reader: RecordReader
    ) -> None:
        self._connection = connection
        self._judge = judge
        self._reads = options.read is not None or options.read_path is not None
        self._option = "read" if options.read is not None else "read_path"
        self._requests = requests
        self._reader = reader

    async def run(self, headers: Headers) -> Step:
        try:
            if self._reads:
                return await self._read(headers)
            return await self._reach(self._requests.make("write", [_SAMPLE]).path, headers)
        except CannotRequestError as error:
            words = f"Not tried: a sample record has no place there, because {error}. {_CANARY}"
            return Step(name="read" if self._reads else "reach", ok=None, detail=words)

    async def _read(self, headers: Headers) -> Step:
        request = self._reader.request([_SAMPLE])
        answer = await self._connection.call(
            request.method, request.path, request.content, headers, headers=self._requests.headers()
        )
        if self._reader.is_absence(answer):
            return step("read", True, "A read of a key that nobody has was answered as it should be.", answer)
        if not answer.well:
            return refused("read", self._judge, answer, remedy=f"This is the call to {self._option}.")
        fault = self._reader.fault(answer)
        if fault:
            return step("read", False, fault, answer)
        return step("read", True, "A read of a key that nobody has was answered as it should be.", answer)

    async def _reach(self, path: str, headers: Headers) -> Step:
        fixed = self._requests.headers()
        method = "HEAD"
        answer = await self._connection.call(method, path, None, headers, headers=fixed)
        if answer.status in _ASK_GET:
            method = "GET"
            answer = await self._connection.call(method, path, None, headers, headers=fixed)
        asked = f"{method} of the path was answered {answer.status}"
        if answer.well or answer.status in (400, 404, 405, 406, 415, 422, 501):
            return step("reach", None, f"{asked}: it is there and did not refuse the token. {_CANARY}", answer)
        return refused("reach", self._judge, answer)
