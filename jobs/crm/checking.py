"""Steps of a check, as every adapter writes them (`jobs.crm.port.Crm.check`)."""

from typing import Final

from app.destinations.testing.rules import Step
from jobs.crm.answers import Judge
from jobs.crm.exchange import Answer, NoAnswer
from jobs.crm.port import CallResult

NOBODY: Final = "tranche-check-nobody"
"""A key that no record has."""


def step(name: str, ok: bool | None, detail: str, answer: Answer | NoAnswer | CallResult) -> Step:
    """What one call showed."""
    return Step(name=name, ok=ok, detail=detail, status=answer.status, milliseconds=round(answer.seconds * 1000))


def refused(name: str, judge: Judge, answer: Answer | NoAnswer, *, remedy: str = "") -> Step:
    """A call that did not go as it should, in the words that a delivery would have for it."""
    detail = judge.verdict(answer).detail
    return step(name, False, f"{detail}. {remedy}" if remedy else detail, answer)
