"""`python -m tests.audit`, part of `make lint`: known vulnerabilities of what is shipped, and secrets in the tree."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from app.auth import tokens

ROOT: Final = Path(__file__).parents[1]
_SECONDS: Final = 120.0
_LARGEST: Final = 4_000_000
_PATTERNS: Final = {
    "private key": r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----\s+[A-Za-z0-9+/=]{40}",
    "AWS key": r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",
    "GitHub token": r"\bgh[pousr]_[A-Za-z0-9]{36}\b|\bgithub_pat_\w{60,}",
    "GitLab token": r"\bglpat-[\w-]{20,}",
    "Slack token": r"\bxox[abprs]-[\w-]{20,}|hooks\.slack\.com/services/T\w+/B\w+/\w{20,}",
    "Stripe key": r"\b[rs]k_live_[A-Za-z0-9]{20,}",
    "Google key": r"\bAIza[\w-]{35}\b",
    "HubSpot token": r"\bpat-(?:na|eu)\d-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b",
    "Salesforce session": r"\b00D[A-Za-z0-9]{12,15}![\w.]{40,}",
    "JSON Web Token": r"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{20,}",
    "PyPI token": r"\bpypi-[\w-]{80,}",
    "password in a URL": r"\b[a-z][a-z0-9+]*://[^\s/:@'\"`{}<>]+:(?P<password>[^\s/@'\"`{}<>]{8,})@(?P<host>[\w.-]+)",
    "key of Tranche": rf"\b{tokens.PREFIX}[0-9A-Za-z]{{46}}\b",
}
_RULE: Final = re.compile("|".join(f"(?P<r{n}>{pattern})" for n, pattern in enumerate(_PATTERNS.values())))
_NAMES: Final = tuple(_PATTERNS)
_EXAMPLE: Final = re.compile(r"[\w-]+$|127\.|(?:.*\.)?(?:example|test|invalid)(?:\.(?:com|org|net))?$")
"""Hosts of examples and of networks without names, whose passwords are worth nothing."""
_KNOWN: Final = {"tests/migration/release_0003/answers.json"}
"""Files with keys of databases that tests make."""


class _Vulnerability(msgspec.Struct):
    id: str
    fix_versions: list[str] = []


class _Dependency(msgspec.Struct):
    name: str
    version: str = ""
    skip_reason: str = ""
    vulns: list[_Vulnerability] = []


class _Audit(msgspec.Struct):
    dependencies: list[_Dependency]


def find_secrets(text: str) -> Iterator[tuple[int, str]]:
    """The line and the kind of each; a key of Tranche counts if its checksum is right."""
    for found in _RULE.finditer(text):
        name = next(name for n, name in enumerate(_NAMES) if found[f"r{n}"])
        if name == "password in a URL" and _EXAMPLE.match(found["host"]):
            continue
        if name == "key of Tranche" and tokens.parse(found[0]) is None:
            continue
        yield text.count("\n", 0, found.start()) + 1, name


def scan_files() -> list[str]:
    """Of all files that git knows or would take."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    names = {name.decode() for name in listed.stdout.split(b"\0") if name} - _KNOWN
    paths = [ROOT / name for name in sorted(names)]
    files = [path for path in paths if path.is_file() and path.stat().st_size < _LARGEST]
    return [
        f"{path.relative_to(ROOT)}:{line}: {kind}"
        for path in files
        for line, kind in find_secrets(path.read_bytes().decode("utf-8", "replace"))
    ]


def audit_requirements() -> list[str] | None:
    """Known vulnerabilities of the pinned versions; None: the database of vulnerabilities cannot be reached."""
    command = [sys.executable, "-m", "pip_audit", "--disable-pip", "--require-hashes", "-r", "requirements.txt"]
    options = ["--vulnerability-service", "osv", "--timeout", "5", "--progress-spinner", "off", "--format", "json"]
    try:
        run = subprocess.run([*command, *options], cwd=ROOT, capture_output=True, timeout=_SECONDS)
        audit = msgspec.json.decode(run.stdout, type=_Audit)
    except (subprocess.TimeoutExpired, msgspec.DecodeError):
        return None
    if all(one.skip_reason for one in audit.dependencies):
        return None
    return [
        f"{one.name} {one.version}: {found.id}, mended in {', '.join(found.fix_versions) or 'no version yet'}"
        for one in audit.dependencies
        for found in one.vulns
    ]


def main() -> int:
    secrets, vulnerabilities = scan_files(), audit_requirements()
    for line in secrets:
        print(
            f"{line}: take it out, and replace it where it is used: it is in the history of everybody who has seen it"
        )
    for line in vulnerabilities or []:
        print(line)
    if vulnerabilities is None:
        print("Vulnerabilities: skipped, as their database (OSV) cannot be reached.")
    return 1 if secrets or vulnerabilities else 0


if __name__ == "__main__":
    sys.exit(main())
