"""Which of some words was probably meant by one with a slip in it."""

from collections.abc import Iterator, Mapping
from typing import Final

_SHORTEST: Final = 3
_END: Final = 2
_LONG: Final = 2 * _END
"""Length from which the two ends of a word do not overlap."""


class Index:
    """Words and their meanings, found in a time that does not grow with their number.

    A typo is a character that is missing, added, wrong or exchanged with its neighbour: leaving out one
    character of each of two words then makes them equal (the symmetric deletion of SymSpell).
    """

    def __init__(self, words: Mapping[str, str]) -> None:
        self._words = words
        self._longest = max(map(len, words), default=0)
        self._near: dict[str, str] = {}
        for word, meaning in words.items():
            for shorter in _shorten(word):
                self._near.setdefault(shorter, meaning)
        self._near |= words
        self._begins = {word[:_END] for word in self._near}
        self._ends = {word[-_END:] for word in self._near}

    def find(self, word: str) -> str | None:
        """The meaning of the word, or of the nearest one; None where none is near."""
        if word in self._words:
            return self._words[word]
        if not _SHORTEST <= len(word) <= self._longest + 1:
            return None
        near = self._near
        if word in near:
            return near[word]
        # Most words are like none, and two letters tell: leaving out a letter changes one end at the most.
        size = len(word)
        first = 0 if size < _LONG or word[-_END:] in self._ends else size - _END
        last = size if size < _LONG or word[:_END] in self._begins else _END
        for at in range(first, last):
            meaning = near.get(word[:at] + word[at + 1 :])
            if meaning is not None:
                return meaning
        return None


def _shorten(word: str) -> Iterator[str]:
    """The word without each of its characters."""
    return (word[:at] + word[at + 1 :] for at in range(len(word)))
