"""Templates of requests: JSON, in whose strings `{NAME}` is replaced with what a record or a call has.

    {"type": "identify", "userId": "{id}", "traits": {"email": "{fields.email}", "...": "{attributes}"}}

A string that is one placeholder becomes its value, of whatever type; within other text a value is written as text.
`{NAME:url}` percent-encodes it, and `{NAME:json}` writes it as JSON, a text in quotes; `{NAME:quoted}` writes each
element of a list so, with commas between. `{{` and `}}` are braces. The member `...` merges objects into the one around
it; what that names itself takes precedence. The name of a member may have placeholders, too.

What nobody named is left out: a placeholder without a value, a text that contains one, and an object or a list in which
no placeholder has a value. `null` is what was cleared; an element of a list in which every value was cleared is left
out of the list, so a list of one phone number becomes an empty list. What has no placeholder is sent as it is.

A template has no conditions, loops or functions, and is rendered in a time that grows with its length and that of the
values alone.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from enum import IntEnum
from typing import Any, Final
from urllib.parse import quote

import msgspec

SPREAD: Final = "..."
MOST_NODES: Final = 500
DEEPEST: Final = 20
LONGEST: Final = 2_000
"""Characters of one string."""

_PART: Final = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]|[^{}]+")
_FORMS: Final = (":url", ":json", ":quoted")
_MEMBERS: Final = frozenset({"fields", "attributes", "values"})
"""Roots that have members: `fields.email`."""


class TemplateError(ValueError):
    """A template cannot be used; the message names what is wrong, after the place in it."""


class Absent(Exception):
    """A text cannot be written, because this placeholder has no value."""


class Placeholder(msgspec.Struct, frozen=True):
    root: str
    member: str | None = None
    form: str = ""
    """How it is written: `:url`, `:json`, `:quoted`, or as it is."""

    def __str__(self) -> str:
        return self.root if self.member is None else f"{self.root}.{self.member}"


class State(IntEnum):
    """What a part of a template came to; of several the greatest."""

    CONSTANT = 0
    ABSENT = 1
    CLEARED = 2
    PRESENT = 3


Values = Callable[[Placeholder], Any]
"""Gives the value of a placeholder; `UNSET`: it has none."""
Rendered = tuple[Any, State]


class Text(msgspec.Struct, frozen=True):
    parts: tuple[str | Placeholder, ...]

    def placeholders(self) -> Iterator[Placeholder]:
        yield from (part for part in self.parts if isinstance(part, Placeholder))

    def write(self, values: Values, *, encoded: bool = False) -> str:
        """As text. With `encoded` every value is percent-encoded. Raises `Absent`: a placeholder has no value."""
        written = []
        for part in self.parts:
            if isinstance(part, str):
                written.append(part)
                continue
            value = values(part)
            if value is msgspec.UNSET or value is None:
                raise Absent(str(part))
            match part.form:
                case ":json":
                    text = msgspec.json.encode(value).decode()
                case ":quoted":
                    elements = value if isinstance(value, list | tuple) else [value]
                    text = ",".join(msgspec.json.encode(text_of(element)).decode() for element in elements)
                case _:
                    text = text_of(value)
            written.append(quote(text, safe="") if encoded or part.form == ":url" else text)
        return "".join(written)

    def render(self, values: Values) -> Rendered:
        if len(self.parts) == 1 and isinstance(self.parts[0], Placeholder) and not self.parts[0].form:
            value = values(self.parts[0])
            if value is msgspec.UNSET:
                return None, State.ABSENT
            return value, State.CLEARED if value is None else State.PRESENT
        found = [values(part) for part in self.placeholders()]
        if any(value is msgspec.UNSET for value in found):
            return None, State.ABSENT
        if any(value is None for value in found):
            return None, State.CLEARED
        return self.write(values), State.PRESENT


class Constant(msgspec.Struct, frozen=True):
    value: Any

    def placeholders(self) -> Iterator[Placeholder]:
        yield from ()

    def render(self, values: Values) -> Rendered:
        return self.value, State.CONSTANT


class Members(msgspec.Struct, frozen=True):
    """An object."""

    members: tuple[tuple[Text, "Node"], ...]
    spread: tuple[Placeholder, ...] = ()

    def placeholders(self) -> Iterator[Placeholder]:
        yield from self.spread
        for name, node in self.members:
            yield from name.placeholders()
            yield from node.placeholders()

    def render(self, values: Values) -> Rendered:
        rendered: dict[str, Any] = {}
        state = State.CONSTANT
        for placeholder in self.spread:
            found = values(placeholder)
            named = found if isinstance(found, Mapping) else {}
            cleared = State.CLEARED if named else State.ABSENT
            state = max(state, State.PRESENT if any(v is not None for v in named.values()) else cleared)
            rendered |= named
        for name, node in self.members:
            value, own = node.render(values)
            state = max(state, own)
            if own is not State.ABSENT:
                rendered[name.write(values)] = value
        return rendered, state


class Elements(msgspec.Struct, frozen=True):
    """A list."""

    elements: tuple["Node", ...]

    def placeholders(self) -> Iterator[Placeholder]:
        for node in self.elements:
            yield from node.placeholders()

    def render(self, values: Values) -> Rendered:
        found = [node.render(values) for node in self.elements]
        kept = [value for value, state in found if state in (State.CONSTANT, State.PRESENT)]
        return kept, max((state for _, state in found), default=State.CONSTANT)


Node = Text | Constant | Members | Elements


def text_of(value: Any) -> str:
    """A value within a text: numbers and booleans as JSON has them, lists of plain values with commas."""
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple) and not any(isinstance(one, dict | list) for one in value):
        return ",".join(map(text_of, value))
    return msgspec.json.encode(value).decode()


def compile_text(text: str, roots: frozenset[str]) -> Text:
    """A string with placeholders, of which `roots` are known. Raises `TemplateError`."""
    if len(text) > LONGEST:
        raise TemplateError(f"a text is longer than {LONGEST} characters")
    parts: list[str | Placeholder] = []
    for found in _PART.finditer(text):
        part = found[0]
        if part in ("{", "}"):
            raise TemplateError(f"{text!r} has a single {part!r}: write {part * 2!r} for the character itself")
        if part in ("{{", "}}"):
            part = part[0]
        elif found[1] is not None:
            parts.append(_placeholder(found[1], roots))
            continue
        if parts and isinstance(parts[-1], str):
            parts[-1] += part
        else:
            parts.append(part)
    return Text(tuple(parts))


def compile_template(value: Any, roots: frozenset[str]) -> Node:
    """A template. Raises `TemplateError`: the message begins with the place in it, as `.traits.email: `."""
    return _Compiler(roots).compile(value, "", 0)


def _placeholder(name: str, roots: frozenset[str]) -> Placeholder:
    form = next((form for form in _FORMS if name.endswith(form)), "")
    root, dot, member = name.removesuffix(form).partition(".")
    if root not in roots or (dot and (root not in _MEMBERS or not member)) or (root == "values" and not member):
        known = sorted(f"{root}.NAME" if root == "values" else root for root in roots)
        with_members = [f"{root}.NAME" for root in ("fields", "attributes") if root in roots]
        raise TemplateError(f"{{{name}}} is not known here; there are: {', '.join(sorted([*known, *with_members]))}")
    return Placeholder(root, member if dot else None, form)


class _Compiler:
    def __init__(self, roots: frozenset[str]) -> None:
        self._roots = roots
        self._nodes = 0

    def compile(self, value: Any, place: str, depth: int) -> Node:
        self._nodes += 1
        if self._nodes > MOST_NODES or depth > DEEPEST:
            raise TemplateError(f"{place}: a template has at most {MOST_NODES} parts and is {DEEPEST} deep")
        if isinstance(value, str):
            text = self._text(value, place)
            return text if any(text.placeholders()) else Constant("".join(map(str, text.parts)))
        if isinstance(value, Mapping):
            members = tuple(
                (self._name(name, place), self.compile(inner, f"{place}.{name}", depth + 1))
                for name, inner in value.items()
                if name != SPREAD
            )
            return self._plain(value, Members(members, self._spread(value.get(SPREAD), place)))
        if isinstance(value, list):
            elements = tuple(self.compile(inner, f"{place}[{n}]", depth + 1) for n, inner in enumerate(value))
            return self._plain(value, Elements(elements))
        return Constant(value)

    def _plain(self, value: Any, node: "Members | Elements") -> Node:
        """What has no placeholder is one constant."""
        if any(True for _ in node.placeholders()):
            return node
        rendered, _ = node.render(lambda _: msgspec.UNSET)
        return Constant(rendered)

    def _name(self, name: str, place: str) -> Text:
        """Of a member: what is in it is the same for every record, or always there."""
        text = self._text(name, f"{place}.{name}")
        if any(placeholder.root not in ("values", "type", "id") for placeholder in text.placeholders()):
            raise TemplateError(f"{place}.{name}: the name of a member has {{values.NAME}}, {{type}} or {{id}} alone")
        return text

    def _text(self, value: str, place: str) -> Text:
        try:
            return compile_text(value, self._roots)
        except TemplateError as error:
            raise TemplateError(f"{place}: {error}") from None

    def _spread(self, value: Any, place: str) -> tuple[Placeholder, ...]:
        texts = value if isinstance(value, list) else [] if value is None else [value]
        found = []
        for text in texts:
            parts = self._text(text, f"{place}.{SPREAD}").parts if isinstance(text, str) else ()
            if (
                len(parts) != 1
                or not isinstance(parts[0], Placeholder)
                or parts[0].root not in ("fields", "attributes")
                or parts[0].member is not None
            ):
                raise TemplateError(f'{place}.{SPREAD}: "{{fields}}", "{{attributes}}", or a list of both belongs here')
            found.append(parts[0])
        return tuple(found)
