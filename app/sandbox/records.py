"""The records a sandbox holds, each object and portal (account) its own, found by a unique property or by record id."""

import bisect
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from app.sandbox.ledger import Effect


class Record(msgspec.Struct, kw_only=True):
    """`properties` is replaced at a change, never mutated: ledger rows share it."""

    id: str
    portal: str
    object: str
    """What kind of record, in the vendor's word: `contacts`, `Account`."""
    key_property: str
    key: str
    properties: dict[str, Any]
    created_at: str
    updated_at: str


def effect_of(
    record: Record, at: str, *, changed: bool = True, created: bool = False, deleted: bool = False, by: str = "api"
) -> Effect:
    """A row of the ledger for what was done to a record, by no call."""
    of = {name: getattr(record, name) for name in ("portal", "object", "key_property", "key", "id", "properties")}
    return Effect(at=at, **of, changed=changed, created=created, deleted=deleted, by=by)


class Records:
    """All records of one object, of all portals."""

    def __init__(self, make_id: Callable[[int], str], of: str = "") -> None:
        self._make_id = make_id
        self._of = of
        self._made = 0
        """Records that ever were: an id is never given twice."""
        self._taken: set[str] = set()
        """Ids of the file that this was restored from, which may begin with any number."""
        self._by_id: dict[tuple[str, str], Record] = {}
        self._by_key: dict[tuple[str, str, str], Record] = {}
        self._by_value: dict[tuple[str, str], dict[Any, list[Record]]] = {}
        """By portal and property, for properties that were searched."""
        self._order: dict[str, list[Record]] = {}
        """By portal, in the order of their ids, for portals that were listed since a record came or went."""

    def __iter__(self) -> Iterator[Record]:
        return iter(self._by_id.values())

    def __len__(self) -> int:
        return len(self._by_id)

    def find(self, portal: str, key: str, key_property: str | None) -> Record | None:
        """By a unique property, or by record id without one."""
        if key_property is None:
            return self._by_id.get((portal, key))
        found = self._by_key.get((portal, key_property, key))
        if found is not None and found.properties.get(key_property) == key:
            return found
        return self._search(portal, key_property, key)

    def find_all(self, portal: str, name: str, values: Iterable[str]) -> list[Record]:
        """Every record with one of these values, given in lower case, of a property that need not be unique."""
        wanted = set(values)
        return [
            record
            for record in self._by_id.values()
            if record.portal == portal and str(record.properties.get(name, "")).casefold() in wanted
        ]

    def after(self, portal: str, record_id: str, most: int | None = None) -> list[Record]:
        """Records in the order of their ids, from the one behind an id on, which need not be there."""
        if portal not in self._order:
            of = (record for record in self._by_id.values() if record.portal == portal)
            self._order[portal] = sorted(of, key=_in_order)
        order = self._order[portal]
        first = bisect.bisect_right(order, (len(record_id), record_id), key=_in_order)
        return order[first:] if most is None else order[first : first + most]

    def _search(self, portal: str, name: str, value: str) -> Record | None:
        """The first record with this value of a property: most searches are for what is not there."""
        known = self._by_value.get((portal, name))
        if known is None:
            known = self._by_value[portal, name] = {}
            for record in self._by_id.values():
                if record.portal == portal and name in record.properties:
                    known.setdefault(record.properties[name], []).append(record)
        return next(iter(known.get(value, ())), None)

    def _note(self, record: Record, before: dict[str, Any], after: dict[str, Any]) -> None:
        for (portal, name), known in self._by_value.items():
            was, is_now = before.get(name), after.get(name)
            if portal != record.portal or was == is_now:
                continue
            if was is not None:
                known[was].remove(record)
                if not known[was]:
                    del known[was]
            if is_now is not None:
                known.setdefault(is_now, []).append(record)

    def _change(self, record: Record, after: dict[str, Any], at: str) -> None:
        self._note(record, record.properties, after)
        record.properties = after
        record.updated_at = at

    def upsert(
        self, portal: str, key_property: str, key: str, properties: dict[str, Any], at: str
    ) -> tuple[Record, bool, bool]:
        """Set these properties, keep the others; an empty string and `None` clear. Gives (record, created, changed)."""
        record = self.find(portal, key, key_property)
        if record is None:
            filled = _filled(properties) | {key_property: key}
            return self._make(portal, key_property, key, filled, at), True, True
        if (record.key_property, record.key) != (key_property, key):
            self._rename(record, key_property, key)
        return record, False, self.update(record, {**properties, key_property: key}, at)

    def edit(self, record: Record, properties: dict[str, Any], at: str) -> bool:
        """Set these properties as a user does; an empty string and `None` clear, objects merge. Returns whether
        anything changed."""
        merged = {
            name: {**held, **value}
            if isinstance(value, dict) and isinstance(held := record.properties.get(name), dict)
            else value
            for name, value in properties.items()
        }
        after = _filled(record.properties | merged)
        if after == record.properties:
            return False
        self._change(record, after, at)
        return True

    def create(self, portal: str, key_property: str, properties: dict[str, Any], at: str) -> Record:
        """A new record, which may have no key."""
        key = str(properties.get(key_property) or "")
        return self._make(portal, key_property, key, _filled(properties), at)

    def update(self, record: Record, properties: dict[str, Any], at: str, key_property: str | None = None) -> bool:
        """Set these properties of a record that is there; whether that changed anything. With `key_property` among
        them it is found by that from now on."""
        if key_property is not None and properties.get(key_property):
            self._rename(record, key_property, str(properties[key_property]))
        held = record.properties
        same = properties.items() <= held.items()
        if same or all(held.get(name, "") == ("" if v is None else v) for name, v in properties.items()):
            return False
        self._change(record, _filled(held | properties), at)
        return True

    def _make(self, portal: str, key_property: str, key: str, properties: dict[str, Any], at: str) -> Record:
        while self._make_id(self._made) in self._taken:
            self._made += 1
        record = Record(
            id=self._make_id(self._made),
            portal=portal,
            object=self._of,
            key_property=key_property,
            key=key,
            properties=properties,
            created_at=at,
            updated_at=at,
        )
        self._made += 1
        self._add(record)
        self._note(record, {}, properties)
        return record

    def _add(self, record: Record) -> None:
        self._order.clear()
        self._by_id[record.portal, record.id] = record
        if record.key:
            self._by_key[record.portal, record.key_property, record.key] = record

    def _rename(self, record: Record, key_property: str, key: str) -> None:
        self._by_key.pop((record.portal, record.key_property, record.key), None)
        record.key_property, record.key = key_property, key
        self._by_key[record.portal, key_property, key] = record

    def delete(self, portal: str, record_id: str) -> Record | None:
        """Take a record away; gives it if it was there."""
        record = self._by_id.pop((portal, record_id), None)
        if record is not None:
            self._order.clear()
            self._by_key.pop((portal, record.key_property, record.key), None)
            self._note(record, record.properties, {})
        return record

    def restore(self, effects: Iterable[Effect]) -> None:
        """Rebuild from the last effect on each record."""
        for e in effects:
            self._taken.add(e.id)
            if e.deleted:
                continue
            more = {"object": self._of, "created_at": e.at, "updated_at": e.at}
            self._add(msgspec.convert(msgspec.structs.asdict(e) | more, Record))
        self._by_value.clear()

    def clear(self) -> None:
        self._order.clear()
        self._by_id.clear()
        self._by_key.clear()
        self._by_value.clear()


class Objects:
    """The records of every object. An id of one means nothing among those of another."""

    def __init__(self, make_id: Callable[[int, str], str], default: str) -> None:
        self._make_id = make_id
        self._default = default
        self._records: dict[str, Records] = {}

    def of(self, name: str) -> Records:
        if name not in self._records:
            self._records[name] = Records(lambda count: self._make_id(count, name), name)
        return self._records[name]

    def restore(self, effects: Iterable[Effect]) -> None:
        """Rebuild from the last effect on each record. A row without an object is of the default one."""
        rows: dict[str, dict[tuple[str, str], Effect]] = {}
        for effect in effects:
            rows.setdefault(effect.object or self._default, {})[effect.portal, effect.id] = effect
        for name, last in rows.items():
            self.of(name).restore(last.values())

    def clear(self) -> None:
        for records in self._records.values():
            records.clear()


def _in_order(record: Record) -> tuple[int, str]:
    """Ids of an object have one length, or are numbers."""
    return len(record.id), record.id


def _filled(properties: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in properties.items() if value is not None and value != ""}
