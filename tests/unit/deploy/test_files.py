"""Container, compose file and units: read by the linters of the field, and safe by the rules that these do not know."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Final

import click
import pytest

from app.cli.main import tranche
from app.settings import Settings
from tests.deployment import (
    COMPOSE,
    CONTAINERFILE,
    DEPLOY,
    ROOT,
    UNITS,
    compose,
    copied,
    exec_start,
    healthcheck,
    instructions,
)

VARIABLES: Final = {
    name: f"secret-{name}" for name in re.findall(r"^(\w+)=", (DEPLOY / "env.example").read_text(), re.MULTILINE)
}
SERVICES: Final[dict[str, dict[str, Any]]] = compose(VARIABLES)["services"]
OURS: Final = {name: service for name, service in SERVICES.items() if "build" in service}
EXPOSURE: Final = 1.5
"""Most that `systemd-analyze security` may say of a unit, of 10."""


def run(program: str, *arguments: str | Path) -> str:
    """What a linter says; it fails the test if it finds anything, and skips it where it is not installed."""
    found = shutil.which(program, path=str(Path(sys.executable).parent)) or shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not installed here")
    done = subprocess.run([found, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_containerfile_passes_hadolint() -> None:
    run("hadolint", CONTAINERFILE)


def test_the_compose_file_obeys_the_compose_specification() -> None:
    run("check-jsonschema", "--builtin-schema", "vendor.compose-spec", COMPOSE)


def test_units_are_valid_and_confined(tmp_path: Path) -> None:
    assert len(UNITS) == 3
    for unit in UNITS:  # with a program that exists here
        text = unit.read_text().replace("/opt/tranche/bin/tranche", "/bin/true")
        (tmp_path / unit.name.replace("@.", "@8001.")).write_text(text)
    for unit in tmp_path.iterdir():
        said = run("systemd-analyze", "verify", "--man=no", unit)
        assert unit.name not in said, said
        run("systemd-analyze", "security", "--offline=true", f"--threshold={int(EXPOSURE * 10)}", unit)


def test_the_image_gets_what_it_copies_and_no_more() -> None:
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    allowed = {rule[1:] for rule in rules if rule.startswith("!")}

    assert rules[0] == "*"
    assert set(copied()) == allowed
    assert [path for path in copied() if not (ROOT / path).exists()] == []


def test_the_image_installs_pinned_hashes_and_runs_as_nobody_special() -> None:
    said = instructions()
    installs = [rest for name, rest in said if name == "RUN" and " install " in rest]
    users = [rest for name, rest in said if name == "USER"]

    assert [rest for rest in installs if "--require-hashes" not in rest and "--no-deps" not in rest] == []
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", users[-1]), "a number: visibly not root"
    assert said.index(("USER", users[-1])) > max(at for at, (name, _) in enumerate(said) if name in ("RUN", "COPY"))
    assert not re.search(r"https?:|index", CONTAINERFILE.read_text())


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_confined(name: str) -> None:
    service = SERVICES[name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert "secrets" not in service, "Compose refuses those of the environment for a read-only service"
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
    if "build" not in service:
        assert re.search(r":v?\d", service["image"]), "the version is pinned"
        assert service["healthcheck"]["test"][0] == "CMD"
    for volume in service.get("volumes", ()):
        source, *_, mode = volume.split(":")
        if source.startswith("."):
            assert (DEPLOY / source).exists(), f"{source} is not there"
            assert mode == "ro"


def test_services_wait_for_what_they_need() -> None:
    wanted = {"api": {"migrate", "postgres", "valkey"}, "worker": {"migrate", "postgres", "valkey"}}
    conditions = {name: service.get("depends_on", {}) for name, service in SERVICES.items()}

    assert {name: set(conditions[name]) for name in wanted} == wanted
    for needs in conditions.values():
        for other, need in needs.items():
            once = SERVICES[other]["restart"] == "no"
            assert need["condition"] == ("service_completed_successfully" if once else "service_healthy")


def test_each_role_gets_the_settings_that_exist_and_only_its_own_secrets() -> None:
    known = {f"TRANCHE_{name.upper()}" for name in Settings.__struct_fields__}
    given = {name: service["environment"] for name, service in OURS.items()}
    secrets = {
        name: {variable for variable, value in VARIABLES.items() if value in json.dumps(service)}
        for name, service in SERVICES.items()
    }

    assert set().union(*given.values()) <= known
    assert secrets["migrate"] == {"OWNER_PASSWORD"}
    assert secrets["worker"] == {"APP_PASSWORD", "TRANCHE_SECRET_KEY", "TRANCHE_METRICS_TOKEN"}
    assert secrets["api"] == secrets["worker"] | {"TRANCHE_OPERATOR_TOKEN"}
    assert secrets["prometheus"] == {"TRANCHE_METRICS_TOKEN"}
    assert secrets["valkey"] == set()
    assert set().union(*secrets.values()) == set(VARIABLES), "each variable of env.example is used"


def commands() -> Iterable[list[str]]:
    """Every `tranche …` of these files."""
    yield from (service["command"] for service in OURS.values())
    yield from (exec_start(unit) for unit in UNITS)
    (default,) = [rest for name, rest in instructions() if name == "CMD"]
    yield json.loads(default)


@pytest.mark.parametrize("command", list(commands()), ids=" ".join)
def test_commands_and_their_options_exist(command: list[str]) -> None:
    program, verb, *options = command
    found = tranche.get_command(click.Context(tranche), verb)

    assert Path(program).name == "tranche"
    assert found is not None
    found.make_context(verb, options)


def test_there_is_time_to_stop() -> None:
    """As long as a call to a CRM may take, at most, and requests under way."""
    grace = {name: int(OURS[name]["stop_grace_period"][:-1]) for name in ("api", "worker")}
    seconds = {
        unit.name: int(found[1]) for unit in UNITS if (found := re.search(r"TimeoutStopSec=(\d+)", unit.read_text()))
    }

    assert grace["worker"] > 60 + 6
    assert grace["api"] > 15
    assert seconds == {"tranche-api.service": grace["api"], "tranche-worker@.service": grace["worker"]}


def test_secrets_stay_out_of_git_and_are_made_anew(tmp_path: Path) -> None:
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    made = [subprocess.run(["sh", DEPLOY / "make-env.sh"], capture_output=True, text=True).stdout for _ in range(2)]
    values = [dict(re.findall(r"^(\w+)=(.+)$", text, re.MULTILINE)) for text in made]

    assert any(fnmatch("deploy/.env", rule.lstrip("/")) for rule in ignored)
    assert set(values[0]) == set(VARIABLES)
    assert not set(values[0].values()) & set(values[1].values())
    assert min(len(value) for value in values[0].values()) >= 32
    assert len(set(healthcheck()) & {"8000", "8001"}) == 2
