"""A plan is a pure function of its seed, and everything it names exists."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

from tests.chaos import actions, faults, plan
from tests.chaos.campaign import suitable
from tests.chaos.planted import BUGS
from tests.chaos.proxy import MODES, Setting


def test_a_seed_has_one_plan() -> None:
    assert plan.draw(7) == plan.draw(7)
    assert plan.draw(7) != plan.draw(8)
    assert "seed 7" in plan.draw(7).describe()


def test_what_a_plan_names_exists() -> None:
    assert plan.FAULTS.keys() == faults.FAULTS.keys()
    for name in plan.ACTIONS:
        assert callable(getattr(actions, name))


def test_two_hundred_seeds_have_all_there_is() -> None:
    plans = [plan.draw(seed) for seed in range(200)]
    done = Counter(action.kind for p in plans for action in p.actions)
    assert done.keys() == plan.ACTIONS.keys()
    broken = Counter(fault.kind for p in plans for fault in p.faults)
    assert broken.keys() == plan.FAULTS.keys()
    modes = {fault.details["mode"] for p in plans for fault in p.faults if fault.kind == "network"}
    assert modes == set(MODES) - {"pass"}
    assert len({fault.details["fault"] for p in plans for fault in p.faults if fault.kind == "crm"}) >= 12
    for p in plans:
        for fault in p.faults:
            if fault.kind == "network":
                Setting(**fault.details)


def test_every_bug_has_seeds_that_can_show_it() -> None:
    assert len(BUGS) >= 10
    shown = set().union(*(plan.draw(seed).features for seed in range(300)))
    for name, bug in BUGS.items():
        assert bug.meaning, name
        assert bug.wants <= shown, name
        assert next(suitable(bug.wants, 1)) < 300


def test_every_bug_finds_what_it_breaks() -> None:
    """In a process of its own: a function or statement that is not there any more is an error, not a bug that hides."""
    plant = "from tests.chaos.planted import BUGS\nfor bug in BUGS.values(): bug.plant()"
    done = subprocess.run([sys.executable, "-c", plant], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
