"""How states moved, as they were committed and as clients saw them."""

from __future__ import annotations

from typing import Any

from tests.chaos.evidence import WORDS, Edges, Evidence, Finding, Findings, reachable


def moves_are_drawn(e: Evidence, edges: dict[str, Edges]) -> Findings:
    """Each change of a state that was committed is an edge of docs/states.md."""
    for move in e.table("chaos_moves"):
        before, after = move["before"], move["after"]
        if move["what"] == "item":
            before, after = WORDS[before], WORDS[after]
        if (before, after) not in edges[move["what"]]:
            yield Finding("undrawn", f"{move['what']} {move['subject']} went from {before} to {after}")


def polls_never_go_back(e: Evidence, edges: dict[str, Edges]) -> Findings:
    """What clients saw of a job and of its items moved along docs/states.md as well."""
    jobs: dict[str, str] = {}
    items: dict[tuple[str, int, str], str] = {}
    here: dict[tuple[str, int], tuple[Any, Any]] = {}
    for entry in e.journal:
        if entry["row"] == "job":
            before = jobs.get(entry["job_id"], entry["state"])
            if not reachable(edges["job"], before, entry["state"]):
                yield Finding("seen_back", f"job {entry['job_id']} was seen {before}, then {entry['state']}")
            jobs[entry["job_id"]] = entry["state"]
        if entry["row"] != "items":
            continue
        for item in entry["items"]:
            place = (entry["job_id"], item["index"])
            told = (item["status"], item.get("version"))
            if here.setdefault(place, told) != told:
                yield Finding("seen_back", f"item {place[1]} of job {place[0]} was {here[place]}, then {told}")
            for name, at in item["destinations"].items():
                before = items.get((*place, name), at["state"])
                if not reachable(edges["item"], before, at["state"]):
                    yield Finding(
                        "seen_back", f"item {place[1]} of job {place[0]} at {name} was {before}, then {at['state']}"
                    )
                items[*place, name] = at["state"]
