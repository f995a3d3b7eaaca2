"""What is known of each field and attribute of a record: never named, set, cleared by null, or taken back by an undo.

Names are those of documents (`app.resources.documents`). A name with a value is set; one without is cleared if
`cleared` has it, and was never named otherwise. `cleared` has the version in which that
happened, so that it is not sent again to a destination that is known to hold that version, or a later one.
What is kept of a name that has a value by now means nothing.

`withdrawn` are names that an undo took back to "never named". The values at a destination before they were
named are known only if our call created the record: there were none.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from app.resources.documents import Document


class Withdrawn(msgspec.Struct, frozen=True, omit_defaults=True):
    """An undo took back the first naming of something."""

    at: int
    """The version that did so."""
    since: int
    """The version that had named it; a destination that never had it, or a later one, received nothing."""
    cleared: int | bool = 0
    """The version that had cleared it; 0: it had been set. Earlier releases stored `true` for any version."""
    again: int = 0
    """The version in which an undo of this undo cleared it again."""

    def is_known(self, version: int, held: Iterable[int]) -> bool:
        """Whether what is cleared since `version` was cleared before the undo already at a destination that held these
        versions: in between it had no value, so it is not cleared there a second time."""
        if self.again != version or not self.cleared or self.cleared is True:
            return False
        return any(self.cleared <= one < self.at for one in held)


Cleared = dict[str, int]
"""Name → the version in which it was cleared."""
Takings = dict[str, Withdrawn]

_decode_cleared: Final = msgspec.json.Decoder(Cleared | None, strict=False).decode
_decode_withdrawn: Final = msgspec.json.Decoder(Takings).decode


class Known(msgspec.Struct, frozen=True):
    """What is known of one version of a record."""

    named: frozenset[str]
    """Names with a value."""
    cleared: Cleared

    @property
    def clear(self) -> Cleared:
        """Without names that have a value."""
        return {name: version for name, version in self.cleared.items() if name not in self.named}


NOTHING: Final = Known(frozenset(), {})


def know(document: Document, cleared: Cleared) -> Known:
    return Known(frozenset([name for name, value in document.items() if value is not None]), cleared)


def read_cleared(text: str | msgspec.Raw | None) -> Cleared:
    """None, or the JSON of null: nothing was."""
    return {} if text is None else _decode_cleared(text) or {}


def read_withdrawn(text: str | None) -> Takings:
    return {} if text is None else _decode_withdrawn(text)


def take_back(now: Known, before: Known, withdrawn: Takings, *, version: int, since: int) -> tuple[Cleared, Takings]:
    """The names of a record that gets back, as `version`, its state before its version `since`.

    What is cleared already stays so, and is no news to anybody; what has a value by now is cleared anew. So is what an
    undo took back, but it is news only where the first clearing never arrived.
    """
    clear_now, clear_before = now.clear, before.clear
    cleared = {name: clear_now.get(name, version) for name in clear_before}
    taken = dict(withdrawn)
    for name in now.named.union(clear_now) - before.named - clear_before.keys():
        taken[name] = Withdrawn(version, since, clear_now.get(name, 0))
    for name in clear_before.keys() & withdrawn.keys() - clear_now.keys() - now.named:
        taken[name] = msgspec.structs.replace(withdrawn[name], again=version)
    return cleared, taken


class Words(msgspec.Struct, frozen=True):
    """What one destination receives beside the values: names to `clear`; and the names there that cannot be
    restored."""

    clear: frozenset[str] = frozenset()
    not_restored: Mapping[str, int] = {}
    """With the version of the undo."""


_NO_WORDS: Final = Words()


def choose_words(
    known: Known,
    withdrawn: Mapping[str, Withdrawn],
    *,
    held: int,
    doubtful: bool,
    created: bool,
    before: Iterable[int] = (),
) -> Words:
    """For a destination that holds the version `held` (0: none).

    `doubtful`: it may hold a later one. `created`: our call made the record there, so what we named first was empty
    before. `before`: other versions that it has held.
    """
    if not known.cleared and not withdrawn:
        return _NO_WORDS
    seen = (held, *before)
    clear = {
        name
        for name, version in known.clear.items()
        if version > held and not (name in withdrawn and withdrawn[name].is_known(version, seen))
    }
    taken = {
        name: w
        for name, w in withdrawn.items()
        if w.at > held and (w.since <= held or doubtful) and name not in known.named and name not in known.cleared
    }
    if created:
        # What was cleared there is as empty as it was before; what somebody typed since is theirs.
        clear |= {name for name, w in taken.items() if not w.cleared or w.since <= held < w.cleared}
        return Words(frozenset(clear))
    return Words(frozenset(clear), {name: w.at for name, w in taken.items()})


def explain_not_restored(fields: Sequence[str], created: bool | None) -> str:
    """Why these fields are left as they are at a destination."""
    if "email" not in fields:
        return "these fields are left as they are there: what they held before the import named them is not known"
    if created is False:
        return "the record was there before the import, so it is not archived; what its fields held is not known"
    return (
        "whether the import created the record there is not known, because the answer was lost or does not say so: it "
        "is not archived, and what its fields held before is not known"
    )
