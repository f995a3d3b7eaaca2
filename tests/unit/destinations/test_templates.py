"""Templates and expressions of options: what they come to, and what is refused when a destination is added."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from app.destinations import kinds
from app.destinations.expressions import MOST_STEPS, ExpressionError, Finder, TooLong, compile_expression, is_expression
from app.destinations.options import OptionsError
from app.destinations.templates import Placeholder, State, compile_template

ROOTS = frozenset({"id", "fields", "attributes", "values"})
GIVEN: dict[str, Any] = {
    "id": 'k"1',
    "fields": {"email": "a@x.org", "phone": None, "n": 1.5, "yes": True},
    "attributes": {"tags": ["a", "b"], "o": {"p": 1}},
    "values": {"list": "L 1"},
}


def value(placeholder: Placeholder) -> Any:
    found = GIVEN.get(placeholder.root, msgspec.UNSET)
    return found if placeholder.member is None else found.get(placeholder.member, msgspec.UNSET)


@pytest.mark.parametrize(
    ("template", "rendered", "state"),
    [
        ({"a": 1, "b": [True, None]}, {"a": 1, "b": [True, None]}, State.CONSTANT),
        ("{fields.n}", 1.5, State.PRESENT),
        ("{fields.email}/{fields.n}/{fields.yes}/{attributes.tags}", "a@x.org/1.5/true/a,b", State.PRESENT),
        ("{{{id}}}", '{k"1}', State.PRESENT),
        ("{id:json} {id:url}", '"k\\"1" k%221', State.PRESENT),
        ("in.({id:quoted})", 'in.("k\\"1")', State.PRESENT),
        ("in.({attributes.tags:quoted})", 'in.("a","b")', State.PRESENT),
        ("{fields.nobody}", None, State.ABSENT),
        ("x {fields.nobody}", None, State.ABSENT),
        ("x {fields.phone}", None, State.CLEARED),
        ({"a": {"b": "{fields.nobody}", "c": 1}, "d": 2}, {"d": 2}, State.ABSENT),
        ({"a": {"b": "{fields.nobody}", "c": "{id}"}}, {"a": {"c": 'k"1'}}, State.PRESENT),
        ({"a": [{"v": "{fields.phone}", "c": 1}]}, {"a": []}, State.CLEARED),
        ({"a": [{"v": "{fields.nobody}", "c": 1}], "b": "{id}"}, {"b": 'k"1'}, State.PRESENT),
        ({"a": [{"c": 1}, {"v": "{fields.phone}"}]}, {"a": [{"c": 1}]}, State.CLEARED),
        ({"...": "{attributes}", "o": "{id}"}, {"tags": ["a", "b"], "o": 'k"1'}, State.PRESENT),
        ({"{values.list}": "{id}"}, {"L 1": 'k"1'}, State.PRESENT),
    ],
    ids=str,
)
def test_what_a_template_comes_to(template: Any, rendered: Any, state: State) -> None:
    assert compile_template(template, ROOTS).render(value) == (rendered, state)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"item": {"a": {"b": "{emial}"}}}, "item.a.b: {emial} is not known here; there are: attributes, "),
        ({"item": {"a": ["{id"]}}, "item.a[0]: '{id' has a single '{': write '{{' for the character itself"),
        ({"item": {"...": "{id}"}}, 'item....: "{fields}", "{attributes}", or a list of both belongs here'),
        ({"item": {"a{fields.x}": 1}}, "item.a{fields.x}: the name of a member has "),
        ({"item": {"a": "{values.list}"}}, "item: {values.list} is not among the values"),
        ({"listing": {"path": "/x/{id}"}}, "listing.path: "),
        (
            {"listing": {"path": "/x", "query": {"a": "{values.b}"}}},
            "listing.query.a: {values.b} is not among the values",
        ),
        ({"listing": {"path": "/x", "next": "[-1"}}, "listing.next: "),
        ({"path": "/x/{cursor}"}, "path: "),
        ({"item": {"a": "{records}"}}, "item.a: {records} is not known here"),
        ({"body": {"a": 1}}, "body: it contains neither {records} nor {record}"),
        ({"path": "/x/{fields}"}, "path: {fields} is an object; name one, as {fields.NAME}"),
        ({"path": "/x/{version}"}, "path: {version} is not known here"),
        ({"path": "/x/{id}", "batch_size": 5}, "batch_size: a call has one record"),
        ({"results": "status"}, "results: status is for calls with one record"),
        ({"update": {"path": "/x/{remote_id}"}}, "update: it is for one record, while a write has many: use {records}"),
        ({"update": {"path": "/x", "body": {"a": 1}}}, "update.body: it does not contain {records}"),
        ({"update": {"path": "/x", "body": {"a": "{ids}"}}}, "update.body: it does not contain {records}"),
        ({"delete": {"path": "/x"}}, "delete: nothing in its path, query or body says which records"),
        ({"delete": {"path": "/{type}", "query": {"all": "true"}, "body": ["all"]}}, "delete: nothing in its path"),
        ({"delete": {"path": "/x/{id}"}}, "delete: it is for one record, while a write has many: use {ids}"),
        ({"read": {"path": "/x", "query": {"q": "{id}"}}}, "read: it is for one record, while a write has many"),
        ({"delete": {"path": "/x", "query": {"a": "{ids}"}, "method": "GET"}}, "delete.method: GET is for reading"),
        ({"read": {"path": "/x", "body": {"a": "{ids}"}, "method": "GET"}}, "read.method: GET is for reading"),
        ({"read": {"path": "/x", "method": "POST", "body": "{records}"}}, "read.body: nothing is sent to be read"),
        ({"read": {"path": "x"}}, "options.read.path: It has characters that are not allowed there"),
        ({"read": {"pfad": "/x"}}, "options.read.pfad: there is no such member. (path, method (GET), "),
        ({"headers": {"Authorization": "x"}}, "headers: Authorization would show a secret"),
        ({"headers": {"X-Session": "x"}}, "headers: X-Session would show a secret"),
        ({"headers": {"X-Parse-Master-Key": "x"}}, "headers: X-Parse-Master-Key would show a secret"),
        ({"headers": {"Host": "x"}}, "headers: Host cannot be chosen"),
        ({"headers": {"X-Forwarded-For": "1.2.3.4"}}, "headers: X-Forwarded-For cannot be chosen"),
        ({"headers": {"Metadata-Flavor": "Google"}}, "headers: Metadata-Flavor cannot be chosen"),
        ({"headers": {"Content-Length": "1"}}, "headers: Content-Length cannot be chosen"),
        ({"headers": {"X-A": "a\r\nHost: b"}}, "headers.X-A: it must be printable ASCII"),
        ({"headers": {"X A": "a"}}, "headers: 'X A' is not the name of a header field"),
        ({"query": {"api_token": "x"}}, "query: api_token would show a secret"),
        ({"content_type": "text/html"}, "options.content_type: It has characters that are not allowed there"),
        ({"results_field": "errors[?"}, "results_field: 'errors[?' is no JMESPath expression"),
        ({"result_id": "sort_by(@, &a)"}, "result_id: sort_by() cannot be used"),
        ({"result_id": "join(',', @)"}, "result_id: join() cannot be used; the functions are contains, "),
        ({"read": {"path": "/x", "records": "[[a,a],[a,a]]"}}, "read.records: an expression has at most one multi-sel"),
        (
            {"match_on": "email", "read_path": "/r", "update": {"path": "/x"}},
            "match_on: records are looked for in the default shape alone, without item, update, ",
        ),
        ({"preset": "klavio"}, "options.preset: 'klavio' is not a preset; there are: braze, brevo, "),
        ({"preset": "mailchimp"}, "options.values: the preset mailchimp needs list_id: the id of the audience."),
    ],
    ids=str,
)
def test_what_is_refused_names_its_place_and_the_remedy(options: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionsError) as refused:
        kinds.parse("http", options)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    "headers",
    [
        {"Revision": "2026-01-15"},
        {"Intercom-Version": "2.14"},
        {"Prefer": "resolution=merge-duplicates"},
        {"Accept": "a/b"},
    ],
    ids=str,
)
def test_header_fields_that_services_ask_for_can_be_chosen(headers: dict[str, str]) -> None:
    kinds.parse("http", {"headers": headers})


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("errors[].email", ["a", "b"]),
        ("failed.*[]", [1, 2, 3]),
        ("errors[?code=='x'].email | [0]", "b"),
        ("not_null(nobody, name)", "n"),
        ("length(name.nobody)", None),
        ("@", {"is": "the whole"}),
    ],
)
def test_expressions(text: str, found: Any) -> None:
    body = {"errors": [{"email": "a"}, {"email": "b", "code": "x"}], "failed": {"x": [1], "y": [2, 3]}, "name": "n"}
    assert is_expression(text)
    assert Finder().find(body if text != "@" else found, text) == found


@pytest.mark.parametrize("name", ["a", "a.b", "my-key", "results", "@id", ""])
def test_names_are_no_expressions(name: str) -> None:
    assert not is_expression(name)


@pytest.mark.parametrize("text", ["!" * 499 + "a", "a" * 501, ".".join("a" * 61)], ids=len)
def test_an_expression_has_bounds(text: str) -> None:
    with pytest.raises(ExpressionError):
        compile_expression(text)


def test_no_expression_costs_more_time_than_its_answer_is_worth() -> None:
    body = [[list(range(10)) for _ in range(100)] for _ in range(1_000)]
    started = time.process_time()
    with pytest.raises(TooLong):
        Finder().find(body, "[*][*][?@ > `1`][]")
    assert time.process_time() - started < 5 * MOST_STEPS / 200_000


PAGE = Path(__file__).parents[3] / "docs" / "destinations-http.md"


@pytest.mark.parametrize("block", re.findall(r"```json\n(.*?)```", PAGE.read_text(), re.DOTALL))
def test_every_example_of_the_page_can_be_used(block: str) -> None:
    kinds.parse("http", json.loads(block))
