"""Records that are at a service without our key: they are looked for before they first go there, and released again.

In the default shape alone (option `match_on`):

    POST /contacts/read {"email":["ada@example.org"]}
    200 {"contacts":[{"id":null,"remote_id":"r7","email":"ada@example.org",…}]}
    POST /contacts {"contacts":[{"id":"c1","remote_id":"r7",…}]}

One that is released is sent with `"id":null`.
"""

from collections.abc import Mapping
from typing import Any

from app.deliveries.before_images import Adoption, FieldBefore
from app.destinations.expressions import Finder
from app.destinations.http_options import HttpOptions
from app.destinations.kinds import LOOKED_FOR_BY_READ
from app.destinations.options import OptionsError
from app.resources.declaration import Resource
from app.resources.documents import ATTRIBUTE
from jobs.crm.answers import Judge, objects
from jobs.crm.exchange import Connection
from jobs.crm.http.items import key_of, remote_id_of
from jobs.crm.http.refusals import Reader, found
from jobs.crm.http.requests import Requests
from jobs.crm.mapping import text
from jobs.crm.matching import NOT_KEPT, Found, adopted, group, later, match, refusal
from jobs.crm.port import Headers, Keep, SentRecord
from jobs.crm.tally import Tally


class Search:
    """Looks for new records of one type at one service."""

    def __init__(
        self, options: HttpOptions, resource: Resource, requests: Requests, connection: Connection, judge: Judge
    ) -> None:
        """Raises `OptionsError`: there is no path to look for them."""
        self._options = options
        self._requests = requests
        self._connection = connection
        self._judge = judge
        self._named = options.fields_of(resource.name)
        self._matched_by = options.match_field(resource) or ""
        self._match = requests.map.name_at(self._matched_by)
        """The field there that new records are looked for by."""
        if self._match is not None and options.read_path is None:
            raise OptionsError(f"options.match_on: {LOOKED_FOR_BY_READ}")

    @property
    def wanted(self) -> bool:
        return self._match is not None

    async def look_for(self, tally: Tally, headers: Headers, keep: Keep) -> dict[str, SentRecord]:
        """Those of the new records that are there, as they are to be written."""
        name, options = self._match, self._options
        new = [c for c in tally.open() if c.remote_id is None and not c.deleted]
        sources = self._requests.map.sources
        pairs = [(c, value) for c in new if name and (value := text(sources(c).get(name)).strip())]
        if name is None or not pairs:
            return {}
        looked = [c for c, _ in pairs]
        wanted = {name: list(dict.fromkeys(value for _, value in pairs))}
        answer = await self._connection.call(
            "POST",
            options.read_path or "",
            wanted,
            headers,
            headers=self._requests.headers(),
            seconds=self._connection.left(tally.seconds),
        )
        body = answer.json() if answer.well else None
        results = found(body, options.wrapper or "")
        if not isinstance(results, list) or Reader([], options.id_field).read(body, results=results).unexplained:
            tally.add(self._judge.not_done(looked, answer))
            return {}
        tally.note(answer)
        there = [
            (result.get(name), Found(self._own_id(result) or "", key_of(result, options.id_field) or None, result))
            for result in objects(results)
            if found(result, options.deleted_field or "deleted") is not True
        ]
        matches = match(pairs, group(there), field=self._matched_by)
        tally.outcomes |= matches.refused
        adopt = [(c, one) for c in looked if (one := matches.adopt.get(c.record_id)) is not None]
        nameless = [c for c, one in adopt if not one.remote_id]
        words = (
            f"it is there without our key, and without {options.result_remote_id!r}, by which it could be written to"
        )
        tally.outcomes |= {c.record_id: refusal(c, words) for c in nameless}
        adoptions = {
            c.record_id: Adoption(c.record_id, one.remote_id, self._before(c, one.values))
            for c, one in adopt
            if one.remote_id
        }
        kept = await keep(list(adoptions.values())) if adoptions else frozenset()
        tally.outcomes |= {c.record_id: later(c, NOT_KEPT) for c, _ in adopt if c.record_id in adoptions.keys() - kept}
        return {c.record_id: adopted(c, adoptions[c.record_id]) for c, _ in adopt if c.record_id in kept}

    def _own_id(self, result: dict[str, Any]) -> str | None:
        return remote_id_of(result, self._options.result_remote_id, Finder())

    def _before(self, record: SentRecord, values: Mapping[str, Any]) -> list[FieldBefore]:
        """What it holds of that which is about to be overwritten, attributes in an object of their own included."""
        nested = self._options.attributes_field
        before = self._requests.map.before(record, values)
        if nested is not None:
            held = values.get(nested)
            theirs = held if isinstance(held, dict) else {}
            rest = [name for name in record.attributes if name not in self._named]
            before += [FieldBefore(f"{ATTRIBUTE}{name}", (nested, name), theirs.get(name)) for name in rest]
        return before
