"""A sandbox under load for hours: it stays small, counts on, and forgets no record."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.sandbox import ledger as module
from app.sandbox.ledger import Call, Effect, Kept, Ledger


def effect(ledger: Ledger, key: str) -> Effect:
    return Effect(
        at="now",
        call=ledger.call_count,
        request_id="r",
        portal="p",
        key_property="id",
        key=key,
        id=key,
        properties={"n": str(ledger.effect_count + 1)},
        changed=True,
        created=False,
    )


def call(ledger: Ledger, key: str) -> None:
    called = ledger.begin(Call(method="POST", path="/", on="write", portal="p", request_id="r"))
    kept = Kept(portal="p", key=f"k{called.call}", digest="d", status=200, body="{}")
    ledger.apply([effect(ledger, key)], kept)
    ledger.settle(called)
    ledger.end()


def test_the_newest_rows_are_in_memory_and_all_are_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, most in (("MOST_EFFECTS", 10), ("MOST_CALLS", 5), ("MOST_KEPT", 3)):
        monkeypatch.setattr(module, name, most)
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path)
    for number in range(40):
        call(ledger, f"c{number % 7}")
    for each in (ledger, Ledger(path)):
        assert (each.effect_count, each.call_count) == (40, 40)
        assert b'"seq":31' in bytes(each.effects()[0])
        assert len(each.effects()) == 10
        assert len(each.effects(since=38)) == 2
        assert each.effects(portal="q") == []
        assert [row.call for row in each.calls] == [36, 37, 38, 39, 40]
        assert sorted(key for _, key in each.kept) == ["k38", "k39", "k40"]
    again = Ledger(path)
    assert {row.key: row.properties["n"] for row in again.latest()} == {
        f"c{number % 7}": str(number + 1) for number in range(33, 40)
    }
    assert list(again.latest()) == []
    assert path.read_bytes().count(b'"row":"effect"') == 40


def test_large_effects_are_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 2_000)
    ledger = Ledger()
    for size in (100, 100, 900, 100, 5_000, 100):
        large = effect(ledger, "c")
        large.properties = {"note": "x" * size}
        ledger.apply([large])
        held = [len(bytes(row)) for row in ledger.effects()]
        assert sum(held) <= 2_000 or len(held) == 1
    assert ledger.effect_count == 6
    assert b'"seq":6' in bytes(ledger.effects()[0])
