"""Lets go of what a failed call held.

An exception keeps the frames that it passed through, and frames of aiohttp keep the exception: in the future of a
shared look-up, or in the list of addresses that were tried. Such a cycle holds the body of the call, and may hold the
records in it, until the garbage collector runs, which counts objects and not their bytes.
"""


def drop_tracebacks(error: BaseException) -> None:
    """Of an exception that was handled and those that led to it; their types, words and attributes remain."""
    dropped: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        each = waiting.pop()
        if each is not None and id(each) not in dropped:
            dropped.add(id(each))
            each.__traceback__ = None
            waiting += each.__cause__, each.__context__
