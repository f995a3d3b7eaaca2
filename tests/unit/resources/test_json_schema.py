"""Definitions of types: what is refused, and that a change which is accepted leaves every stored record valid."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from app.resources.declaration import Resource
from app.resources.decoding import Accepted, reader_of
from app.resources.json_schema import Definition, SchemaError, compile_type, find_tightening
from app.resources.types.contacts import CONTACTS


def compiled(properties: Any, *, base: Resource | None = None, **more: Any) -> Resource:
    required = more.pop("required", [])
    definition = Definition(schema={"properties": properties, "required": required}, **more)
    return compile_type(base.name if base else "things", definition, type_id=100, version=1, base=base)


@pytest.mark.parametrize(
    ("properties", "place"),
    [
        ({"a": {"type": "string", "minLength": 3, "maxLength": 2}}, "/schema/properties/a/maxLength"),
        ({"a": {"type": "string", "maxLength": -1}}, "/schema/properties/a/maxLength"),
        ({"a": {"type": "string", "pattern": "(a)\\1"}}, "/schema/properties/a/pattern"),
        ({"a": {"type": "string", "pattern": "(?=a)"}}, "/schema/properties/a/pattern"),
        ({"a": {"type": "string", "pattern": 5}}, "/schema/properties/a/pattern"),
        ({"a": {"type": "string", "format": "ipv4"}}, "/schema/properties/a/format"),
        ({"a": {"type": "string", "const": "x"}}, "/schema/properties/a/const"),
        ({"a": {"type": ["string", "null"]}}, "/schema/properties/a/type"),
        ({"a": {"type": "integer", "minimum": 3, "maximum": 2}}, "/schema/properties/a/maximum"),
        ({"a": {"type": "number", "minimum": "1"}}, "/schema/properties/a/minimum"),
        ({"a": {"type": "string", "enum": []}}, "/schema/properties/a/enum"),
        ({"a": {"enum": ["x", 1]}}, "/schema/properties/a/enum"),
        ({"a": {"type": "array", "items": {"type": "array"}}}, "/schema/properties/a/items"),
        ({"a": {"type": "array", "items": {"type": "object"}}}, "/schema/properties/a/items/type"),
        ({"a": 5}, "/schema/properties/a"),
        ({"a/b": {"type": "string"}}, "/schema/properties/a~1b"),
        ({"attributes": {"type": "string"}}, "/schema/properties/attributes"),
        ({f"f{n}": {"type": "string"} for n in range(201)}, "/schema/properties"),
        ([], "/schema/properties"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_place(properties: Any, place: str) -> None:
    with pytest.raises(SchemaError) as refused:
        compiled(properties)
    assert refused.value.detail.split(": ")[0] == place


def test_what_is_added_to_a_built_in_type_is_new_and_optional() -> None:
    own = compiled({"birthday": {"type": "string", "format": "date"}}, base=CONTACTS)
    assert [field.name for field in own.fields] == [*(field.name for field in CONTACTS.fields), "birthday"]
    for properties, more in (
        ({"phone": {"type": "string"}}, {}),
        ({"rank": {"type": "integer"}}, {"required": ["rank"]}),
        ({}, {"attributes": False}),
        ({}, {"singular": "person"}),
        ({}, {"aliases": {"nowhere": ["x"]}}),
    ):
        with pytest.raises(SchemaError):
            compiled(properties, base=CONTACTS, **more)


def test_a_field_that_the_product_has_by_now_is_the_products() -> None:
    """A release that adds a field does not take their types away from tenants that had one of this name."""
    definition = Definition(schema={"properties": {"phone": {"type": "integer"}, "rank": {"type": "integer"}}})
    own = compile_type("contacts", definition, type_id=1, version=1, base=CONTACTS, stored=True)
    assert [field.name for field in own.fields] == [*(field.name for field in CONTACTS.fields), "rank"]


_TEXTS = st.text(alphabet="ab1-", max_size=6)
_SMALL = st.integers(-3, 6)


@st.composite
def _field(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from(["string", "integer", "number", "boolean", "array"]))
    made: dict[str, Any] = {"type": kind}

    def maybe(keyword: str, values: st.SearchStrategy[Any]) -> None:
        if draw(st.booleans()):
            made[keyword] = draw(values)

    if kind == "string":
        maybe("minLength", st.integers(0, 3))
        maybe("maxLength", st.integers(0, 6))
        maybe("pattern", st.sampled_from(["^a", "b", "[0-9]"]))
        maybe("format", st.sampled_from(["date", "email", "uuid"]))
        maybe("enum", st.lists(_TEXTS, min_size=1, max_size=4))
    elif kind in ("integer", "number"):
        maybe("minimum", _SMALL)
        maybe("maximum", _SMALL)
        maybe("enum", st.lists(_SMALL, min_size=1, max_size=4))
    elif kind == "array":
        made["items"] = draw(
            st.sampled_from([{"type": "string"}, {"type": "integer"}, {"type": "integer", "minimum": 1}])
        )
        maybe("maxItems", st.integers(0, 3))
    return made


_VALUES: st.SearchStrategy[Any] = st.one_of(
    _TEXTS,
    st.sampled_from(["2026-03-31", "a@b.co", "9f1c1a52-6f6e-4a53-9a2e-0a7a2c3d9a11"]),
    _SMALL,
    st.floats(-3, 6),
    st.booleans(),
    st.none(),
    st.lists(_TEXTS | _SMALL, max_size=4),
)


def _is_sound(resource: Resource, item: dict[str, Any]) -> bool:
    (row,) = reader_of(resource).read([msgspec.json.encode(item)], max_item_bytes=10_000)
    return isinstance(row, Accepted)


@given(
    before=st.dictionaries(st.sampled_from("xyz"), _field(), min_size=1, max_size=3),
    after=st.dictionaries(st.sampled_from("xyz"), _field(), max_size=3),
    keep=st.booleans(),
    required=st.tuples(st.sets(st.sampled_from("xyz")), st.sets(st.sampled_from("xyz"))),
    values=st.dictionaries(st.sampled_from("xyz"), _VALUES, min_size=1, max_size=3),
    data=st.data(),
)
def test_a_change_that_is_accepted_leaves_every_sound_record_sound(
    before: dict[str, Any],
    after: dict[str, Any],
    keep: bool,
    required: tuple[set[str], set[str]],
    values: Any,
    data: Any,
) -> None:
    after = before | after if keep else after
    for name, field in before.items():  # a change of one keyword is likelier to be accepted than another field
        if name in after and field and data.draw(st.booleans()):
            dropped = data.draw(st.sampled_from(sorted(field)))
            after[name] = {k: v for k, v in field.items() if k != dropped or k in ("type", "items")}
    try:
        old = compiled(before, required=sorted(required[0] & before.keys()))
        new = compiled(after, required=sorted(required[1] & after.keys()))
    except SchemaError:
        assume(False)
    item = {"id": "1"} | {name: value for name, value in values.items() if name in before}
    assume(_is_sound(old, item))
    if find_tightening(old, new) is None:
        assert _is_sound(new, item), (before, after, item)
