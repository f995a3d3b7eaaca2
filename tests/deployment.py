"""The files of deploy/, as an engine or a service manager would read them."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml

ROOT: Final = Path(__file__).parents[1]
DEPLOY: Final = ROOT / "deploy"
CONTAINERFILE: Final = DEPLOY / "Containerfile"
COMPOSE: Final = DEPLOY / "compose.yaml"
RULES: Final = DEPLOY / "prometheus"
DASHBOARD: Final = DEPLOY / "grafana" / "dashboards" / "tranche.json"
UNITS: Final = sorted((DEPLOY / "systemd").glob("*.service"))


def compose(variables: Mapping[str, str]) -> dict[str, Any]:
    """The compose file with its variables replaced; one that is missing raises KeyError."""
    text = re.sub(r"\$\{(\w+):\?[^}]*\}", lambda found: variables[found[1]], COMPOSE.read_text())
    return dict(yaml.safe_load(text))


def instructions() -> list[tuple[str, str]]:
    """Those of the Containerfile, in order: name and arguments."""
    text = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", CONTAINERFILE.read_text(), flags=re.MULTILINE))
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in text.splitlines() if line)]


def copied() -> list[str]:
    """What the image gets of the repository: paths."""
    words = [rest.split() for name, rest in instructions() if name == "COPY" and "--from" not in rest]
    return [word for line in words for word in line[:-1] if not word.startswith("--")]


def healthcheck() -> list[str]:
    """The command of the Containerfile that checks the health."""
    (text,) = [rest for name, rest in instructions() if name == "HEALTHCHECK"]
    return list(json.loads(text[text.index("CMD ") + 4 :]))


def exec_start(unit: Path) -> list[str]:
    """The command of a unit."""
    (text,) = re.findall(r"^ExecStart=(.+)$", unit.read_text(), re.MULTILINE)
    return shlex.split(text)


class Panel(msgspec.Struct, frozen=True):
    """One query of the dashboard."""

    title: str
    expr: str
    legend_format: str

    def query(self, interval: str, change: Callable[[str], str] = str) -> str:
        """What Grafana asks, its variables replaced; `change` is done before."""
        return change(self.expr).replace("$__rate_interval", interval).replace("$kind", ".*")

    def legend(self, labels: Mapping[str, str]) -> str:
        return re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), self.legend_format)


def dashboard_panels() -> list[Panel]:
    """Every query of the dashboard, in order."""
    return [
        Panel(panel["title"], target["expr"], target["legendFormat"])
        for panel in json.loads(DASHBOARD.read_text())["panels"]
        for target in panel.get("targets", ())
    ]
