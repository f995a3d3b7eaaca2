"""What must be true after a round, whatever broke in it: one function a rule, each with its findings.

The rules take the clients' word for what they sent and were told, the CRMs' ledgers for what happened there and the
rows of PostgreSQL for what Tranche believes; each is held against the others. `docs/chaos.md` tells them in words.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tests.chaos.evidence import STATES, Edges, Evidence, Finding, Findings, read_states
from tests.chaos.rules import answers, here, hooks, states, theirs, there

MOST: Final = 5
"""Findings of one rule that are told; more would hide the others."""

RULES: Final[tuple[Callable[[Evidence], Findings], ...]] = (
    answers.answers_stand,
    answers.answers_are_foreseen,
    answers.acknowledged_is_done,
    answers.refused_is_nowhere,
    answers.keys_and_jobs_agree,
    here.ledger_is_whole,
    here.undone_is_undone,
    here.sums_are_right,
    here.effects_add_up,
    here.deliveries_go_where_they_belong,
    here.everything_rests,
    here.jobs_end_last,
    here.nothing_surprises,
    here.dead_letters_are_written,
    here.conflicts_are_written,
    here.dead_letters_are_taken_once,
    here.all_have_it_or_none,
    here.reads_are_true,
    theirs.typed_values_survive,
    theirs.records_of_others_stay,
    theirs.creations_are_known,
    there.nothing_is_made_up,
    there.effects_are_single,
    there.destinations_hold_the_records,
    there.refused_there_is_not_there,
    there.syncs_are_true,
    there.crms_are_spared,
    there.refusals_are_heeded,
    there.accounts_are_blamed_once,
    there.neighbours_hold_up_nobody,
    hooks.messages_arrive,
    hooks.receivers_are_told_what_is,
    hooks.events_are_complete,
)


def check(evidence: Evidence, drawn: dict[str, Edges] | None = None) -> list[Finding]:
    """Every rule; an empty list is a round in which every promise was kept.

    `drawn`: the edges of `docs/states.md`, by default as it stands.
    """
    edges = read_states(STATES.read_text("utf-8")) if drawn is None else drawn
    found: list[Finding] = []
    for rule in RULES:
        found += _bound(lambda rule=rule: rule(evidence), rule.__name__)
    found += _bound(lambda: states.moves_are_drawn(evidence, edges), "moves_are_drawn")
    found += _bound(lambda: states.polls_never_go_back(evidence, edges), "polls_never_go_back")
    return found


def _bound(rule: Callable[[], Findings], name: str) -> list[Finding]:
    """The first findings of a rule, and how many more there are."""
    try:
        told = list(rule())
    except (LookupError, TypeError, ValueError) as error:
        # Evidence so strange that a rule cannot read it is none that all is well.
        return [Finding("unreadable", f"{name}: {type(error).__name__}: {error}")]
    more = [Finding(told[0].name, f"… and {len(told) - MOST} more of this rule")] if len(told) > MOST else []
    return told[:MOST] + more
