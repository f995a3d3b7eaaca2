"""JMESPath (https://jmespath.org/specification.html) in options: how the answers of a service are read.

A plain name, or names joined by dots, needs no expression and is read as it is. What contains one of `[]()|*"'` and the
like is one. An expression cannot cost more time than its answer is worth: it has no functions that sort, join or map,
at most one multi-select, and a reading of one answer has a limited number of steps.
"""

import functools
import re
from collections.abc import Iterator
from typing import Any, Final

import jmespath
from jmespath import exceptions, visitor

LONGEST: Final = 500
MOST_NODES: Final = 60
MOST_STEPS: Final = 200_000
"""Of the expressions that read one answer: the visits to their parts, about a microsecond each."""
FUNCTIONS: Final = frozenset(
    {"contains", "ends_with", "keys", "length", "not_null", "starts_with", "to_string", "type"}
)
_SIGNS: Final = re.compile(r"[\[\](){}|*\"'`?!<>=&,]")
_MULTI: Final = frozenset({"multi_select_list", "multi_select_dict"})


class ExpressionError(ValueError):
    """An expression cannot be used; the message says why."""


class TooLong(Exception):
    """The expressions of one answer took all the steps that they have."""


def is_expression(path: str) -> bool:
    """Whether it is more than names joined by dots."""
    return path == "@" or _SIGNS.search(path) is not None


@functools.lru_cache(maxsize=1_000)
def compile_expression(text: str) -> Any:
    """The syntax tree. Raises `ExpressionError`."""
    if len(text) > LONGEST:
        raise ExpressionError(f"an expression has at most {LONGEST} characters")
    try:
        tree = jmespath.compile(text).parsed
        nodes = list(_nodes(tree))
    except (exceptions.JMESPathError, RecursionError, ValueError) as error:
        words = " ".join(str(error).split("\n")[0].split()) or "it is nested too deeply"
        raise ExpressionError(f"{text!r} is no JMESPath expression: {words}") from None
    if len(nodes) > MOST_NODES:
        raise ExpressionError(f"an expression has at most {MOST_NODES} parts")
    if sum(node["type"] in _MULTI for node in nodes) > 1:
        raise ExpressionError("an expression has at most one multi-select, such as [a, b] or {a: b}")
    for node in nodes:
        name = node.get("value")
        if node["type"] == "expref" or (node["type"] == "function_expression" and name not in FUNCTIONS):
            shown = "&" if node["type"] == "expref" else f"{name}()"
            raise ExpressionError(f"{shown} cannot be used; the functions are {', '.join(sorted(FUNCTIONS))}")
    return tree


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """A tree and all its parts; the children of a slice are numbers."""
    if isinstance(tree, dict):
        yield tree
        for child in tree.get("children", ()):
            yield from _nodes(child)


class _Interpreter(visitor.TreeInterpreter):  # type: ignore[misc]
    steps = MOST_STEPS

    def visit(self, node: Any, *args: Any, **kwargs: Any) -> Any:
        self.steps -= 1
        if self.steps < 0:
            raise TooLong
        return super().visit(node, *args, **kwargs)


class Finder:
    """Finds the parts of one answer."""

    def __init__(self) -> None:
        self._interpreter = _Interpreter()

    def find(self, value: Any, text: str) -> Any:
        """What an expression finds; `None`: nothing, or a function does not take what it found.
        Raises `TooLong`."""
        try:
            return self._interpreter.visit(compile_expression(text), value)
        except (exceptions.JMESPathError, RecursionError):
            return None
