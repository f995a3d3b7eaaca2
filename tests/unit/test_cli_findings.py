"""What a person with a messy file, or a folder of their own, met at the command line."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from app.cli.stack import own_command


def test_a_package_named_app_in_the_current_folder_is_not_taken_for_ours(tmp_path: Path) -> None:
    """`tranche up` starts its parts this way, and may well be typed in somebody's own project."""
    for name in ("app", "jobs"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('not the one you meant')")
    done = subprocess.run(
        own_command("settings", "--json"), cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)
