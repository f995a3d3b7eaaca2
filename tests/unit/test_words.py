"""Names, messages and pages use the field's terms (docs/glossary.md), not words of our own.

What is checked: the names that a file of `app` or `jobs` defines (modules, functions, classes, variables, log events,
command-line options, SQL and Lua), its messages (every string with a space in it), its docstrings, and every page.

`words_to_clean.txt` lists the files that still break the rule, and in which part. The list may only shrink: a clean
file must leave it, and no other file may break the rule. `python -m tests.unit.test_words` writes the list anew and
shows the findings; look at the difference before you commit it.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
LIST: Final = Path(__file__).with_name("words_to_clean.txt")
GLOSSARY: Final = ROOT / "docs" / "glossary.md"

NAMES: Final = {
    "bury buried": "dead_letter",
    "crowd crowds": "poll_rate",
    "figures": "stats",
    "flights": "single_flight",
    "humans": "operator",
    "lane lanes": "worker_pool, limiter",
    "letter letters": "dead_letter",
    "owe owed owing": "outbox, pending",
    "patience": "timeout",
    "serving": "destination_worker",
    "spool spooled": "staging, staged",
    "stand stands stood standing standstill": "state, blocked_reason",
    "stroke strokes": "batched_delete",
    "stumble stumbles": "on_error",
    "tell tells telling told untold": "report, notify",
    "turn turns": "slot, transaction, fair_queue",
    "unfit": "unreadable",
    "wake waker wakes": "notify, notifier",
    "way ways": "destination client",
    "windows": "concurrency_limit",
    "wish wishes": "override",
}
"""Words that no name has as one of its parts, and what is said instead."""

TEXT_FOLDERS: Final = ("app/", "jobs/crm/", "jobs/imports/")
"""Where a `line` is one of text; elsewhere it is a client, and has no other name."""

LEGITIMATE: Final = re.compile(
    r"dead_letters?"
    r"|(?<![a-z])stand_in"  # the sandbox
    r"|letters?_(state|mail)(?![a-z])"
    r"|is_no_letter(?![a-z])"  # a letter of the alphabet, in an address
)

TEXTS: Final = {
    r"\b(?:un)?told\b|\btell(?:s|ing)?\b": "say, report, notify",
    r"\bstand(?:s|ing)?\b(?!-in)|\bstood\b": "is, appears, is stored, remains",
    r"(?<!dead )(?<!dead-)(?<!dead_)(?<!upper-case )(?<!lower-case )(?<!capital )(?<!one )"
    r"\bletters?\b(?!,? (?:and|or)? ?(?:digits|numbers))(?!, digits)": "dead letter",
    r"\b(?:give|gives|given|gave|giving) (?:\w+ )?up\b": "abandon, stop retrying, dead-letter",
    r"\bpass(?:es|ed|ing)? the word\b": "notify",
    r"\bow(?:e|es|ed|ing)\b": "to be delivered, pending",
    r"\bcrowds?\b|\blanes\b|\bstrokes?\b": "poll rate, worker pool, batch",
    r"\bwish(?:es|ed)?\b": "override",
    r"\bby hand\b": "manually, by an operator",
    r"\bhumans?\b": "an operator",
    r"\bpatience\b": "timeout",
    r"\bborne\b|\binsists?\b": "tolerated; retries",
    r"\bsalesm[ae]n\b": "somebody at the CRM",
    r"\bis none of:|\bno such thing\b": "must be one of, not found",
    r"\bspool(?:s|ed|ing)?\b": "stage, staging",
    r"\bwake-ups?\b|\bwaker\b": "notification, notifier",
}
"""What no text says, as a pattern, and what is said instead."""

_TEXTS: Final = [(re.compile(pattern, re.IGNORECASE), better) for pattern, better in TEXTS.items()]
_BANNED: Final = {word: better for words, better in NAMES.items() for word in words.split()}
_LOGGING: Final = frozenset({"debug", "info", "warning", "error", "exception", "critical"})
_OPTION: Final = re.compile(r"--[a-z][a-z-]*\Z")
_WORD: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_COMMENTS: Final = re.compile(r"--.*|/\*.*?\*/|'(?:[^']|'')*'|\"[^\"]*\"")
_QUERY: Final = re.compile(r"^-- name: (\w+)", re.MULTILINE)
_NOTES: Final = re.compile(r"(?:^ *--.*\n?)+", re.MULTILINE)
_CODE: Final = re.compile(r"^( *)```.*?^\1```|`[^`]+`|<https?:[^>]*>|\]\([^)]*\)", re.DOTALL | re.MULTILINE)


def wrong_names(names: set[str], path: str) -> list[str]:
    """What is wrong with `names`, one finding a name."""
    banned = _BANNED if path.startswith(TEXT_FOLDERS) else _BANNED | {"line": "client", "lines": "clients"}
    found = []
    for name in sorted(names):
        parts = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().replace("-", "_")
        wrong = [part for part in LEGITIMATE.sub("", parts).split("_") if part in banned]
        if wrong:
            found.append(f"{name}: not {wrong[0]!r}; {banned[wrong[0]]}")
    return found


def wrong_words(text: str) -> list[str]:
    """What is wrong with `text`, one finding a word."""
    text = " ".join(text.split())
    return [
        f"…{text[max(0, found.start() - 30) : found.end() + 30]}…: not {found[0]!r}; {better}"
        for pattern, better in _TEXTS
        for found in pattern.finditer(text)
    ]


def findings(path: Path) -> dict[str, list[str]]:
    """What is wrong with the file, under `names`, `messages`, `docstrings`, or `text` of a page."""
    where, text = path.relative_to(ROOT).as_posix(), path.read_text()
    found: dict[str, list[str]] = {}
    if path.suffix == ".py":
        module = Module(text, path.stem)
        found["names"] = wrong_names(module.names, where)
        found["messages"] = [wrong for message in module.messages for wrong in wrong_words(message)]
        found["docstrings"] = [wrong for docstring in module.docstrings for wrong in wrong_words(docstring)]
    elif path.suffix in {".sql", ".lua"}:
        names = {path.stem, *_WORD.findall(_COMMENTS.sub(" ", text)), *_QUERY.findall(text)}
        found["names"] = wrong_names(names, where)
        found["comments"] = [wrong for comment in _NOTES.findall(text) for wrong in wrong_words(comment)]
    else:
        found["text"] = wrong_words(_CODE.sub(" ", text))
    return {kind: wrong for kind, wrong in found.items() if wrong}


class Module:
    """The names that a module defines, its messages and its docstrings."""

    def __init__(self, text: str, name: str) -> None:
        nodes = list(ast.walk(ast.parse(text)))
        self.names = {name}
        self.docstrings: list[str] = []
        self.messages: list[str] = []
        documents = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
        strings = [node for node in nodes if isinstance(node, ast.JoinedStr)]
        pieces = {id(piece) for string in strings for piece in string.values}
        for node in nodes:
            self._note_names(node)
            if isinstance(node, ast.JoinedStr):
                self._note_text("".join(_text(piece) for piece in node.values), document=False)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in pieces:
                self._note_text(node.value, document=id(node) in documents)

    def _note_names(self, node: ast.AST) -> None:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            self.names.add(node.name)
        elif isinstance(node, ast.arg):
            self.names.add(node.arg)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            self.names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            self.names.add(node.attr)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _LOGGING:
            events = (argument.value for argument in node.args[:1] if isinstance(argument, ast.Constant))
            self.names.update(event for event in events if isinstance(event, str) and " " not in event)

    def _note_text(self, text: str, *, document: bool) -> None:
        if document:
            self.docstrings.append(text)
        elif _OPTION.match(text):
            self.names.add(text)
        elif " " in text:
            self.messages.append(text)


def _text(piece: ast.expr) -> str:
    return str(piece.value) if isinstance(piece, ast.Constant) else "{}"


@cache
def survey() -> dict[str, list[str]]:
    """`{"path kind": findings}` of every file that breaks the rule."""
    migrations = ROOT / "app" / "migrations"  # history; what came of it is tests/migration/schema.sql
    sources = [
        path
        for folder in ("app", "jobs")
        for suffix in ("py", "sql", "lua")
        for path in (ROOT / folder).rglob(f"*.{suffix}")
        if migrations not in path.parents
    ]
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "openapi" / "openapi.yaml"]
    found = {}
    for path in sorted([*sources, *pages, ROOT / "tests" / "migration" / "schema.sql"]):
        if path != GLOSSARY:
            for kind, wrong in findings(path).items():
                found[f"{path.relative_to(ROOT).as_posix()} {kind}"] = wrong
    return found


def listed() -> set[str]:
    return set(LIST.read_text().splitlines())


def test_only_listed_files_use_words_of_our_own() -> None:
    new = {where: wrong for where, wrong in survey().items() if where not in listed()}

    assert new == {}, "use the term of docs/glossary.md"


def test_a_file_that_is_clean_leaves_the_list() -> None:
    assert sorted(listed() - survey().keys()) == [], "run: python -m tests.unit.test_words"


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("read_dead_letters", False),
        ("DeadLetter", False),
        ("take_letters", True),
        ("stand_in", False),
        ("what_stands", True),
        ("standard_fields", False),
        ("return_value", False),
        ("Turn", True),
        ("waker", True),
        ("in_flight", False),
        ("--patience", True),
        ("always", False),
    ],
)
def test_a_name_is_judged_by_its_parts(name: str, wrong: bool) -> None:
    assert bool(wrong_names({name}, "app/x.py")) == wrong


def test_a_line_is_one_of_text() -> None:
    assert wrong_names({"line", "lines"}, "app/files/ndjson.py") == []
    assert len(wrong_names({"line", "Line"}, "jobs/line.py")) == 2


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("line 12: the quote is never closed", False),
        ("windows-1252, in the same way, in turn", False),
        ("a dead letter, dead-letter queue; only letters, digits and dashes", False),
        ("letters are taken", True),
        ("an id that stands twice", True),
        ("the stand-in CRM", False),
        ("it is told of every job", True),
        ("a human decides by hand", True),
        ("the job was given up", True),
    ],
)
def test_a_text_is_judged_by_its_words(text: str, wrong: bool) -> None:
    assert bool(wrong_words(text)) == wrong


def test_messages_docstrings_and_names_are_distinguished() -> None:
    source = '''"""Of the module."""
X = 1
"""Of X."""
def f(a):
    """Of f."""
    log.info("event", b=f"now {a} is")
'''
    module = Module(source, "m")

    assert module.names == {"m", "X", "f", "a", "event"}
    assert sorted(module.docstrings) == ["Of X.", "Of f.", "Of the module."]
    assert module.messages == ["now {} is"]


def test_the_glossary_names_every_word_that_is_refused() -> None:
    glossary = set(re.findall(r"[a-z]+", GLOSSARY.read_text().lower()))

    assert [words for words in NAMES if glossary.isdisjoint(words.split())] == []


if __name__ == "__main__":
    LIST.write_text("".join(f"{where}\n" for where in survey()))
    for where, wrong in survey().items():
        print(where, *wrong, sep="\n    ")
