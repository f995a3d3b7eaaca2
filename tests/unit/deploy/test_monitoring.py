"""Rules, alerts and dashboard: Prometheus takes them, every name in them exists, every alert has its runbook."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from app.monitoring import counters, metrics_api
from tests.deployment import DASHBOARD, ROOT, RULES, dashboard_panels
from tests.unit.deploy.test_files import run

RUNBOOKS: Final = ROOT / "docs" / "runbooks"
HEADINGS: Final = ["Meaning", "Impact", "Diagnosis", "Mitigation"]


def rules() -> Iterator[dict[str, Any]]:
    for name in ("rules.yaml", "alerts.yaml"):
        for group in yaml.safe_load((RULES / name).read_text())["groups"]:
            yield from group["rules"]


ALERTS: Final = {rule["alert"]: rule for rule in rules() if "alert" in rule}
RECORDED: Final = {rule["record"] for rule in rules() if "record" in rule}
QUERIES: Final = [str(rule["expr"]) for rule in rules()] + [panel.query("5m") for panel in dashboard_panels()]


def exported() -> set[str]:
    """Every name that a scrape of an API or a worker may bring."""
    names = {name for name, *_ in (metrics_api._STATS | metrics_api._SERVICE_STATS).values()}
    for metric in counters._OWN.collect():
        suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"]}.get(metric.type, [""])
        names |= {metric.name + suffix for suffix in suffixes}
    return names


def used() -> set[str]:
    """Every metric in a query, without those that rules record."""
    names = {name for query in QUERIES for name in re.findall(r"(?<![\w:\"])tranche[_:][\w:]*", query)}
    assert {name for name in names if ":" in name} <= RECORDED
    return {name for name in names if ":" not in name}


def test_prometheus_takes_the_rules() -> None:
    run("promtool", "check", "rules", RULES / "rules.yaml", RULES / "alerts.yaml")
    run("promtool", "check", "config", "--syntax-only", RULES / "prometheus.yml")


def test_the_alerts_fire_when_they_should_and_only_then() -> None:
    run("promtool", "test", "rules", RULES / "alerts_test.yaml")


def test_every_alert_is_tested_both_ways() -> None:
    tested = Counter(test["name"] for test in yaml.safe_load((RULES / "alerts_test.yaml").read_text())["tests"])

    assert tested == {f"{alert} {what}": 1 for alert in ALERTS for what in ("fires", "does not")}


def test_prometheus_understands_the_dashboard(tmp_path: Path) -> None:
    file = tmp_path / "dashboard.yaml"
    panels = [panel.query("5m") for panel in dashboard_panels()]
    queries = [{"record": f"panel:query_{n}", "expr": query} for n, query in enumerate(panels)]
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": queries}]}))

    assert len(queries) > 40
    run("promtool", "check", "rules", file)


def test_every_metric_of_a_query_is_exported_and_documented() -> None:
    documented = (ROOT / "docs" / "metrics.md").read_text()
    families = {re.sub(r"_(bucket|count|sum)$", "", name) for name in used()}

    assert used() - exported() == set()
    assert {name for name in families if name not in documented} == set()
    assert {record for record in RECORDED if not any(record in query for query in QUERIES)} == set(), (
        "nobody uses these"
    )


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_says_how_bad_what_and_where_to_read_on(alert: str) -> None:
    rule = ALERTS[alert]

    assert rule["labels"]["severity"] in ("critical", "warning")
    assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
    assert rule["annotations"]["runbook_url"] == f"docs/runbooks/{alert}.md"


def test_every_alert_has_its_page_and_every_page_its_alert() -> None:
    pages = {page.stem: page.read_text() for page in RUNBOOKS.glob("*.md") if page.stem != "README"}
    index = (RUNBOOKS / "README.md").read_text()

    assert pages.keys() == ALERTS.keys()
    for name, text in pages.items():
        assert re.findall(r"^# (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE) == [name]
        assert re.findall(r"^## (.+)$", text, re.MULTILINE) == HEADINGS
    assert re.findall(r"^\| \[(\w+)\]\(\1\.md\) \| (\w+) \|", index, re.MULTILINE) == [
        (name, rule["labels"]["severity"]) for name, rule in ALERTS.items()
    ]


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    cells = Counter(
        (x, y)
        for grid in (panel["gridPos"] for panel in panels)
        for x in range(grid["x"], grid["x"] + grid["w"])
        for y in range(grid["y"], grid["y"] + grid["h"])
    )

    assert len({panel["id"] for panel in panels}) == len(panels)
    assert max(cells.values()) == 1
    assert max(x for x, _ in cells) < 24
