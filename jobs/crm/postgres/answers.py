"""What PostgreSQL's errors mean, by their SQLSTATE (appendix A of its manual), and what mends them."""

import re
from collections.abc import Callable, Container
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from app.vocabulary.states import EffectState, ErrorCode
from jobs.crm.answers import Judge, Verdict, rename_or_exclude, with_remedy
from jobs.crm.exchange import Answer, NoAnswer
from jobs.crm.port import Authorizer, Health
from jobs.crm.postgres.catalog import quote
from jobs.crm.postgres.wire import ServerError

VENDOR: Final = "PostgreSQL"


class Blame(StrEnum):
    """Whose fault an error is."""

    RECORD = "record"
    """A value that it does not take, a constraint, or whatever a trigger raises."""
    LOCK = "lock"
    """Somebody else holds the row, or a deadlock was broken: later it will do."""
    SETUP = "setup"
    """Table, columns or rights are not as they must be."""
    CONFLICT = "conflict"
    """The transaction as a whole must be made again."""
    SERVER = "server"
    CONNECTION = "connection"
    """User, password or database."""


_LOCKS: Final = frozenset({"55P03", "40P01", "55006"})
_SETUPS: Final = frozenset({"25006", "0A000", "55000", "3F000"})
_BY_CLASS: Final = {
    "42": Blame.SETUP,
    "40": Blame.CONFLICT,
    **dict.fromkeys(("08", "25", "53", "57", "58", "F0", "XX"), Blame.SERVER),
    **dict.fromkeys(("28", "3D"), Blame.CONNECTION),
}
_ROW_SECURITY: Final = "ExecWithCheckOptions"
"""The function that refuses a row by a policy, with the code of a missing right."""
_SHOWS_VALUES: Final = ("22", "23503", "23505", "23P01")
"""Errors whose DETAIL speaks of the values that were sent; that of others shows whole rows."""
CANCELED: Final = "57014"
_ADDRESS: Final = re.compile(r' for host "[^"]*"')
"""Where we call from, as pg_hba.conf sees it."""


def blame(error: ServerError, filled: Container[str]) -> Blame:
    """`filled`: columns that records can fill."""
    code = error.code
    if code == "23502" and error.column not in filled:
        return Blame.SETUP
    if code in _LOCKS:
        return Blame.LOCK
    if code == "42501" and error.function == _ROW_SECURITY:
        return Blame.RECORD
    if code in _SETUPS:
        return Blame.SETUP
    return _BY_CLASS.get(code[:2], Blame.RECORD)


def said(error: ServerError) -> str:
    """Its message, with its code; and the detail, where that speaks of what was sent."""
    words, code = error.message, error.code
    if error.detail and code.startswith(_SHOWS_VALUES):
        words = f"{words}: {error.detail}"
    return f"{_ADDRESS.sub('', words).rstrip('.')} ({code})"


class Failure(NoAnswer, frozen=True, kw_only=True):
    """A transaction that did not go as it should, and the verdict on it."""

    verdict: Verdict


class PostgresJudge(Judge):
    """Judges what PostgreSQL says of one table. `filled`: its columns that records can fill."""

    vendor = VENDOR

    def __init__(self, authorizer: Authorizer, now: Callable[[], datetime], filled: Container[str]) -> None:
        super().__init__(authorizer, now)
        self._filled = filled

    def blame(self, error: ServerError) -> Blame:
        return blame(error, self._filled)

    def verdict(self, answer: Answer | NoAnswer, records: Any = ()) -> Verdict:
        return answer.verdict if isinstance(answer, Failure) else super().verdict(answer, records)

    def refused(self, error: ServerError) -> str:
        return self.words(f"{VENDOR} refused it: {said(error)}")

    def judge(self, error: ServerError, place: "Place") -> Verdict:
        """An error that concerns all records of a transaction, of which nothing was done."""
        detail = self.words(f"{VENDOR}: {said(error)}")
        match self.blame(error):
            case Blame.SETUP:
                return Verdict(health=Health.SETUP_FAULT, detail=with_remedy(detail, place.remedy(error)))
            case Blame.CONNECTION:
                return Verdict(health=Health.CONNECTION_FAULT, detail=detail)
            case Blame.SERVER:
                return Verdict(health=Health.CRM_FAULT, detail=detail)
            case Blame.RECORD:
                return Verdict(health=Health.WELL, detail=detail, refused=True)
        return Verdict(health=Health.WELL, detail=detail)


class Place:
    """The table in words, for remedies."""

    def __init__(self, table: str, user: str, key: str, *, deletes: bool) -> None:
        self.table = table
        """Quoted."""
        self._user = user
        self._key = key
        self._deletes = deletes

    def remedy(self, error: ServerError) -> str:
        code, table = error.code, self.table
        schema = table.partition(".")[0] if "." in table else "public"
        if code == "42501":
            rights = "SELECT, INSERT, UPDATE, DELETE" if self._deletes else "SELECT, INSERT, UPDATE"
            user = quote(self._user)
            return f"GRANT USAGE ON SCHEMA {schema} TO {user}; GRANT {rights} ON {table} TO {user}"
        if code == "42P10":
            return f"CREATE UNIQUE INDEX ON {table} ({quote(self._key)}), or name a unique column (option key_column)"
        if code in ("42P01", "3F000"):
            return self.missing
        if code == "23502":
            return "give that column a default, or have it filled (option columns)"
        if code == "25006":
            return "let the base URL lead to the primary, and the user write"
        return "look at the table, its triggers and the options of the destination"

    @property
    def missing(self) -> str:
        return f"make the table {self.table} and let the user see it, or name yours (option table)"

    def lacks(self, column: str, ours: str | None, option: str | None) -> str:
        """What mends a column that is not there: it is where a field of ours goes, or what an option names."""
        add = f"add the column {quote(column)} to {self.table}"
        if option is not None:
            return f"{add}, or name another one (option {option})"
        return rename_or_exclude(f"{add}, give", ours or column)


def unavailable(detail: str) -> tuple[EffectState, ErrorCode, str]:
    return EffectState.RETRY, ErrorCode.DESTINATION_UNAVAILABLE, detail
