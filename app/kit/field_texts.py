"""The docstrings of a struct's fields, which say to users what they mean."""

import linecache
import re
import sys
from typing import Final

import msgspec

_CLASS: Final = r"^class {name}\b.*?(?=^[^\s)]|\Z)"
_FIELD: Final = re.compile(
    r'^    (\w+): [^\n]*(?:\n(?:     +[^\n]*|    [\])}][^\n]*))*\n    """(.*?)"""', re.MULTILINE | re.DOTALL
)


def read_field_texts(struct: type) -> dict[str, str]:
    """The docstrings of a struct's attributes, by the names that they have on the wire.

    Python keeps none of them, so they are read from the source. Not with `ast`: on Python 3.11 it fails if another
    thread uses it (CPython issue 106905).
    """
    texts: dict[str, str] = {}
    for base in reversed(struct.__mro__):
        if issubclass(base, msgspec.Struct) and base is not msgspec.Struct:
            source = "".join(linecache.getlines(sys.modules[base.__module__].__file__ or ""))
            found = re.search(_CLASS.format(name=base.__name__), source, re.MULTILINE | re.DOTALL)
            texts |= {name: " ".join(text.split()) for name, text in _FIELD.findall(found[0] if found else "")}
    names = {field.name: field.encode_name for field in msgspec.structs.fields(struct)}
    return {names[name]: text for name, text in texts.items() if name in names}
