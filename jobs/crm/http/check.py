"""A harmless look at a service of which nothing is known but HTTP.

With `read_path` it is a read of a key that nobody has, as deliveries read. Without it HEAD asks for the path that
records are sent to, or GET where HEAD is not known. Both are safe by RFC 9110, 9.2.1, and show at least whether the
service is there and whether it refuses the token. Whether it takes records only a canary shows.
"""

from typing import Final

from app.destinations.kinds import HttpOptions
from app.destinations.testing.rules import Step
from jobs.crm.answers import NOBODY, Judge, refused, step
from jobs.crm.exchange import Connection
from jobs.crm.http.refusals import Reader, found
from jobs.crm.port import Headers

_ASK_GET: Final = frozenset({404, 405, 501})
_CANARY: Final = "Whether it takes records only a test with the canary shows."


async def check(connection: Connection, judge: Judge, options: HttpOptions, headers: Headers) -> Step:
    path = options.read_path
    if path is None:
        return await _reach(connection, judge, options.path, headers)
    answer = await connection.call("POST", path, {"ids": [NOBODY]}, headers)
    if not answer.well:
        return refused("read", judge, answer, remedy="This is the call to read_path.")
    body = answer.json()
    results = found(body, options.wrapper or "")
    if not isinstance(results, list):
        where = f"under {options.wrapper!r}" if options.wrapper else "at its top"
        words = f"The answer of read_path has no list of records {where} (option wrapper)."
        return step("read", False, words, answer)
    refusals = Reader([], options.id_field).read(body, results=results)
    if refusals.unexplained:
        return step("read", False, f"It answered {answer.status}, but {refusals.sign}.", answer)
    return step("read", True, "A read of a key that nobody has was answered as it should be.", answer)


async def _reach(connection: Connection, judge: Judge, path: str, headers: Headers) -> Step:
    method = "HEAD"
    answer = await connection.call(method, path, None, headers)
    if answer.status in _ASK_GET:
        method = "GET"
        answer = await connection.call(method, path, None, headers)
    asked = f"{method} of the path was answered {answer.status}"
    if answer.well or answer.status in (400, 404, 405, 406, 415, 422, 501):
        return step("reach", None, f"{asked}: it is there and did not refuse the token. {_CANARY}", answer)
    return refused("reach", judge, answer)
