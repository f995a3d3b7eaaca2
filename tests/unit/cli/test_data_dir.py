"""`--data-dir` names the installation of `tranche up` for every command that goes to its database."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from app.cli.main import tranche
from app.errors import SettingsError

COMMANDS = [
    "keys list",
    "keys create --tenant t",
    "keys change k --name n",
    "keys rotate k",
    "keys revoke k",
    "tenants list",
    "tenants create t",
    "tenants disable t",
    "tenants enable t",
    "secrets list",
    "secrets rotate",
    "destinations list",
    "destinations pause d",
    "destinations test d",
    "serve",
    "worker",
    "migrate",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_it_is_looked_for_where_data_dir_says(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATABASE_URL", "REDIS_URL", "API_KEY"):
        monkeypatch.delenv(f"TRANCHE_{name}", raising=False)
    monkeypatch.setenv("TRANCHE_DATA_DIR", str(tmp_path / "other"))
    result = CliRunner().invoke(tranche, [*command.split(), "--data-dir", str(tmp_path / "mine")])
    assert isinstance(result.exception, SettingsError), result.output
    assert f"nothing is up in {tmp_path / 'mine'}/" in result.exception.detail
