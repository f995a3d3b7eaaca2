"""Options of destinations: what is refused, in which words, and what a worker makes of stored ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from app.cli import destinations as cli
from app.destinations import kinds, service
from app.destinations.options import LIMITS, Options, OptionsError, describe, limits_of, read_options
from app.destinations.presets import presets, resolve_preset
from app.resources.types import BUILT_IN

DOCS = Path(__file__).parents[3] / "docs" / "adapters.md"


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        (
            "fax",
            {},
            "'fax' is not a kind of destination; there are: hubspot, salesforce, http, postgres, object, kafka.",
        ),
        ("hubspot", {"batchsize": 5}, "options.batchsize: hubspot has no such option; there are: batch_size, "),
        ("hubspot", {"batch_size": 101}, "options.batch_size: Expected `int` <= 100. (Most records per call.)"),
        ("salesforce", {"batch_size": 201}, "options.batch_size: Expected `int` <= 200."),
        ("http", {"batch_size": True}, "options.batch_size: Expected `int | null`, got `bool`."),
        ("http", {"concurrency": 65}, "options.concurrency: Expected `int` <= 64."),
        ("http", {"rate": 0}, "options.rate: Expected `float` >= 0.001. (Most calls per second.)"),
        ("http", {"rate": float("nan")}, "options.rate: "),
        ("http", {"total_timeout": 61}, "options.total_timeout: Expected `float` <= 60.0."),
        # Milliseconds taken for seconds would fail every call, and open the circuit that all share.
        ("http", {"total_timeout": 0.01}, "options.total_timeout: Expected `float` >= 1.0."),
        ("http", {"connect_timeout": 9, "total_timeout": 8}, "options: connect_timeout is within total_timeout"),
        ("http", {"fields": {"email": 1}}, "options.fields[...]: Expected `str | null`, got `int`."),
        ("http", {"fields": {"": "x"}}, "options.fields: Expected `str` of length >= 1."),
        ("http", {"fields": {"a": "x", "b": "x"}}, "options: fields: 'a' and 'b' cannot both go to 'x'."),
        ("hubspot", {"fields": {"Plan": "phone"}}, "options: fields: 'phone' and 'Plan' cannot both go to 'phone'."),
        ("salesforce", {"fields": {"a": "Tier__c", "b": "tier__C"}}, "'a' and 'b' cannot both go to 'tier__C'"),
        ("salesforce", {"fields": {"a": "TRANCHE_ID__C"}}, "'a' cannot go to 'TRANCHE_ID__C', which has another"),
        ("hubspot", {"fields": {"a": "tranche_id"}}, "'a' cannot go to 'tranche_id', which has another use"),
        ("http", {"path": "contacts"}, "options.path: It has characters that are not allowed there. (Where "),
        ("http", {"method": "DELETE"}, "options.method: Invalid enum value 'DELETE'. (POST, PUT or PATCH.)"),
        ("hubspot", {"time_zone": "Mars/Olympus"}, "time_zone is not a known IANA time zone: 'Mars/Olympus'"),
    ],
    ids=str,
)
def test_a_wrong_option_is_refused_with_its_place_and_what_it_is(
    kind: str, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(OptionsError) as refused:
        kinds.parse(kind, options)
    assert words in str(refused.value)


@pytest.mark.parametrize("kind", kinds.KINDS)
def test_every_kind_takes_the_common_options(kind: str) -> None:
    options = {
        "batch_size": 50,
        "concurrency": 3,
        "rate": 2.5,
        "connect_timeout": 1,
        "total_timeout": 5,
        "fields": {"company": None, "Plan": "Tier__c"},
    }
    parsed = kinds.parse(kind, options)

    common = Options(batch_size=50, concurrency=3, rate=2.5, connect_timeout=1, total_timeout=5)
    assert limits_of(options) == common
    assert all(getattr(parsed, name) == getattr(common, name) for name in LIMITS)
    assert all(getattr(kinds.parse(kind, {}), name) is None for name in LIMITS)
    assert limits_of({}) == Options()


def test_a_worker_passes_over_options_it_does_not_know_and_refuses_what_cannot_work() -> None:
    assert limits_of({"rate": 3, "from_the_future": {}, "id_property": 5}) == Options(rate=3)
    stored = read_options({"from_the_future": {}, "id_property": "k"}, kinds.HubSpotOptions)
    assert stored.id_property == "k"
    with pytest.raises(OptionsError, match=r"options.rate"):
        limits_of({"rate": "fast"})


@pytest.mark.parametrize("kind", kinds.KINDS)
def test_every_option_is_described_and_documented(kind: str) -> None:
    described = describe(kinds.KINDS[kind].options)
    text = DOCS.read_text()

    assert all(option.words for option in described.values())
    assert f"`{kind}`" in text
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert [
        name
        for name, option in described.items()
        if not any(row.startswith(f"| `{name}` |") and row.endswith(f"| {option.words} |") for row in rows)
    ] == []


class Backend:
    """Where the command takes a destination to."""

    records = 12_345

    def __init__(self) -> None:
        self.added: list[service.NewDestination] = []
        self.synced: list[str] = []

    async def add(self, new: service.NewDestination) -> dict[str, Any]:
        self.added.append(new)
        shown: dict[str, Any] = msgspec.to_builtins(new)
        return shown

    async def sync(self, name: str, asked: object) -> dict[str, Any]:
        self.synced.append(name)
        return {"job_id": "a-job" if self.records else None, "records": self.records}


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[Any, Backend]:
    backend = Backend()
    monkeypatch.setattr(cli, "choose_backend", lambda *_: backend)
    given = ["add", "crm", "--base-url", "https://x", "--token", "t", *arguments]
    return CliRunner().invoke(cli.destinations, given), backend


def test_a_new_destination_is_sent_what_is_there_and_says_how_much(monkeypatch: pytest.MonkeyPatch) -> None:
    result, backend = run(monkeypatch, "--kind", "hubspot")
    assert backend.synced == ["crm"]
    assert "job a-job sends crm what it lacks of 12,345 records" in result.output
    result, backend = run(monkeypatch, "--kind", "hubspot", "--no-backfill")
    assert backend.synced == []


def test_options_are_typed_on_the_command_line_as_one_would_say_them(monkeypatch: pytest.MonkeyPatch) -> None:
    result, backend = run(
        monkeypatch,
        *("--kind", "salesforce", "--batch-size", "150", "--rate", "2.5", "--concurrency", "4"),
        *("--connect-timeout", "2", "--total-timeout", "20"),
        *("--field", "company=", "--field", "Plan=Tier__c"),
        *("--option", "api_version=61.0", "--option", "quota_share=0.5", "--option", "default_last_name=(none)"),
    )

    assert result.exit_code == 0, result.output
    [new] = backend.added
    assert new.options == {
        "batch_size": 150,
        "rate": 2.5,
        "concurrency": 4,
        "connect_timeout": 2.0,
        "total_timeout": 20.0,
        "fields": {"company": None, "Plan": "Tier__c"},
        "api_version": "61.0",
        "quota_share": 0.5,
        "default_last_name": "(none)",
    }
    kinds.parse(new.kind, new.options)


@pytest.mark.parametrize(
    ("kind", "name", "text", "value"),
    [
        ("http", "read_path", "null", None),
        ("http", "read_path", "/x", "/x"),
        ("http", "idempotent", "true", True),
        ("http", "id_field", "5", "5"),
        ("hubspot", "batch_size", "1000", 1000),
        ("hubspot", "properties", '{"a":null}', {"a": None}),
    ],
)
def test_an_option_is_json_where_that_fits_and_text_where_it_does_not(
    kind: str, name: str, text: str, value: object
) -> None:
    assert kinds.read_option(kind, name, text) == value


@pytest.mark.parametrize("wrong", [["--option", "rate"], ["--field", "company"], ["--field", "=x"]], ids=str)
def test_what_is_no_pair_is_refused(monkeypatch: pytest.MonkeyPatch, wrong: list[str]) -> None:
    result, backend = run(monkeypatch, "--kind", "http", *wrong)

    assert result.exit_code != 0
    assert backend.added == []


def test_the_kinds_can_be_listed() -> None:
    shown = CliRunner().invoke(cli.destinations, ["kinds"]).output
    told = msgspec.json.decode(CliRunner().invoke(cli.destinations, ["kinds", "--json"]).output)

    assert set(told) == set(kinds.KINDS)
    assert told["salesforce"]["options"]["external_id_field"]["default"] == "Tranche_Id__c"
    for kind in kinds.KINDS.values():
        assert kind.description in shown


def test_a_preset_needs_no_kind_and_no_base_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "choose_backend", lambda *_: backend)
    backend = Backend()
    given = ["add", "crm", "--token", "t", "--preset", "braze", "--field", "Plan=plan"]
    result = CliRunner().invoke(cli.destinations, given)
    assert result.exit_code == 2
    assert "Missing option '--base-url': https://rest.CLUSTER.braze.com, with yours" in result.output

    given = ["add", "crm", "--token", "t", "--preset", "pipedrive", "--value", "key_field=abc", "--field", "Plan=plan"]
    result = CliRunner().invoke(cli.destinations, given)
    assert result.exit_code == 0, result.output
    [new] = backend.added
    assert (new.kind, new.base_url) == ("http", "https://api.pipedrive.com")
    assert new.options == {"preset": "pipedrive", "fields": {"Plan": "plan"}, "values": {"key_field": "abc"}}
    kinds.parse(new.kind, new.options)

    for arguments, words in [
        (["--preset", "nobody"], "'nobody' is not a preset; there are: braze, "),
        (["--base-url", "https://x"], "Missing option '--kind' (or '--preset')"),
        (["--kind", "http"], "Missing option '--base-url'"),
    ]:
        result = CliRunner().invoke(cli.destinations, ["add", "crm", "--token", "t", *arguments])
        assert result.exit_code == 2
        assert words in result.output


def test_the_kinds_list_every_preset_with_what_it_needs() -> None:
    result = CliRunner().invoke(cli.destinations, ["kinds"])
    assert " Mailchimp, at https://DC.api.mailchimp.com/3.0; values.list_id: the id of " in result.output
    for name in presets():
        assert f"  {name} " in result.output


@pytest.mark.parametrize("name", presets())
def test_every_preset_can_be_used_as_it_is(name: str) -> None:
    preset = presets()[name]
    values = dict.fromkeys(preset.values, "v")
    kinds.parse("http", {"preset": name, "values": values})
    assert preset.base_url.startswith("https://")
    if preset.values:
        with pytest.raises(OptionsError, match="needs"):
            kinds.parse("http", {"preset": name})
    assert f"| `{name}` |" in (DOCS.parent / "destinations-http.md").read_text()


def test_what_a_destination_chooses_takes_precedence_over_its_preset() -> None:
    chosen = {"preset": "brevo", "fields": {"phone": None, "Plan": "PLAN"}, "rate": 3}
    resolved = resolve_preset(chosen)
    assert resolved["fields"] == {**presets()["brevo"].options["fields"], "phone": None, "Plan": "PLAN"}
    assert (resolved["rate"], resolved["auth_header"]) == (3, "api-key")
    assert resolve_preset(resolved) == resolved


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("hubspot", {"match_on": "mail"}, "options.match_on: there is no field 'mail'. Records are looked for by"),
        ("hubspot", {"match_on": "employees"}, "companies cannot be looked for by 'employees', only by a text that"),
        ("salesforce", {"match_on": "company"}, "contacts cannot be looked for by 'company', only by a text that goes"),
        ("hubspot", {"match_on": "email", "fields": {"email": None}}, "contacts cannot be looked for by 'email'"),
        ("hubspot", {"match_on": {"companies": "email"}}, "options.match_on.companies: companies cannot be looked for"),
        (
            "http",
            {"match_on": {"products": "sku"}, "read_path": "/r"},
            "options.match_on.products: records of this type",
        ),
        ("http", {"match_on": "email"}, "options.match_on: records are looked for by read_path, which is not given"),
    ],
    ids=str,
)
def test_a_field_that_no_record_can_be_looked_for_by_is_refused(kind: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionsError) as refused:
        kinds.check_match(kinds.parse(kind, options), list(BUILT_IN.values()))
    assert words in str(refused.value)


@pytest.mark.parametrize("match_on", ["email", "phone", {}, {"contacts": "email", "companies": "domain"}], ids=str)
def test_fields_that_records_can_be_looked_for_by_are_taken(match_on: Any) -> None:
    for kind, more in (("hubspot", {}), ("salesforce", {}), ("http", {"read_path": "/{type}/read"})):
        kinds.check_match(kinds.parse(kind, {"match_on": match_on} | more), list(BUILT_IN.values()))


def test_options_come_from_a_file_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)  # a long path would break the lines of a message
    file = Path("options.yaml")
    file.write_text(
        "path: /v2/people\nitem:\n  id: '{id}'\n  traits: {...: '{fields}'}\nrate: 5\nfields: {phone: tel}\n"
    )
    result, backend = run(
        monkeypatch, "--kind", "http", "--options-file", str(file), "--rate", "3", "--field", "Plan=plan"
    )
    assert result.exit_code == 0, result.output
    assert backend.added[0].options == {
        "path": "/v2/people",
        "item": {"id": "{id}", "traits": {"...": "{fields}"}},
        "rate": 3.0,
        "fields": {"phone": "tel", "Plan": "plan"},
    }

    for content, words in [(b"[1]", "Expected `object`"), (b"a: [", "while parsing"), (b"\xff", "--options-file")]:
        file.write_bytes(content)
        result, _ = run(monkeypatch, "--kind", "http", "--options-file", str(file))
        assert result.exit_code == 2
        assert words in result.output
    result, _ = run(monkeypatch, "--kind", "http", "--options-file", "nobody")
    assert "No such file" in result.output
