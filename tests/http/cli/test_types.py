"""`tranche resource-types` and `tranche records`: a type and its records from the shell."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest
import rich_click as click
from click.testing import CliRunner

from app.cli.records import records_group
from app.cli.resource_types import resource_types_group
from tests.http.conftest import Api

EXAMPLE = Path(__file__).parents[3] / "examples" / "products.json"


async def shell(api: Api, group: click.Group, *words: str, code: int = 0) -> str:
    given = [*words, "--url", api.url, "--key", str(api.key)]
    result = await asyncio.to_thread(CliRunner().invoke, group, given)
    assert result.exit_code == code, result.output
    return result.output


async def test_a_type_is_declared_shown_changed_and_used(api: Api, tmp_path: Path) -> None:
    declared = await shell(api, resource_types_group, "apply", str(EXAMPLE))
    assert '"pattern":"^[A-Z]{2}-[0-9]{4}$"' in declared
    assert "products" in await shell(api, resource_types_group, "list")

    shown = msgspec.json.decode(await shell(api, resource_types_group, "show", "products", "--json"))
    shown["schema"]["properties"]["weight"] = {"type": "number"}
    changed = tmp_path / "changed.json"
    changed.write_bytes(msgspec.json.encode(shown))
    assert "weight" in await shell(api, resource_types_group, "apply", str(changed))
    again = msgspec.json.decode(await shell(api, resource_types_group, "apply", str(changed), "--json"))
    assert again["version"] == 2

    items = [{"id": "p1", "title": "Lamp", "price": 9.5, "weight": 2, "attributes": {"color": "red"}}]
    pushed = await api.request(
        "POST",
        "/v1/products:bulk",
        data=msgspec.json.encode({"items": items}),
        headers={"Content-Type": "application/json", "Idempotency-Key": "1"},
    )
    assert pushed.status == 207, pushed.body
    assert "Lamp" in await shell(api, records_group, "list", "--type", "products")
    assert "Lamp" in await shell(api, records_group, "show", "p1", "--type", "products")
    assert "created" in await shell(api, records_group, "history", "p1", "--type", "products")
    lines = (await shell(api, records_group, "export", "--type", "products", "--csv")).splitlines()
    assert len(lines) == 2
    assert lines[0].split(",")[0] == "id"
    (record,) = (await shell(api, records_group, "export", "--type", "products")).splitlines()
    assert msgspec.json.decode(record)["attributes"] == {"color": "red"}


@pytest.mark.parametrize(
    ("content", "words"), [("{", "is not valid JSON"), ("{}", "name the type"), ('{"name": "A b"}', "name the type")]
)
async def test_a_file_that_declares_nothing_is_refused(api: Api, tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "type.json").write_text(content)
    assert words in await shell(api, resource_types_group, "apply", str(tmp_path / "type.json"), code=2)
