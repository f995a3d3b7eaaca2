"""E-mail addresses: what is none, and why.

Source: RFC 5321, 6531 and 5890. No address is looked up, quoted local parts are refused, a domain needs a dot,
special names are allowed. In ASCII these are the rules of the library email-validator, which takes fifty times
as long, and a body can hold many addresses. In a domain of another script letters, digits and marks are
allowed; which of them a registry takes beside one another is not judged.
"""

import re
import unicodedata
from collections.abc import Sequence
from encodings.punycode import punycode_decode
from functools import lru_cache
from typing import Final

_ATOM: Final = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]++"
# No part of an address of up to 64 characters can be too long, so this one expression is enough for it.
_USUAL_LENGTH: Final = 64
_USUAL_TEXT: Final = rf"{_ATOM}(?:\.{_ATOM})*+@(?:[A-Za-z0-9]++(?:-[A-Za-z0-9]++)*+\.)+[A-Za-z]{{2,63}}"
_USUAL: Final = re.compile(_USUAL_TEXT).fullmatch
_ALL_USUAL: Final = re.compile(rf"(?:(?=[^\n]{{1,{_USUAL_LENGTH}}}\n){_USUAL_TEXT}\n)*").fullmatch
_MAX_LOCAL: Final = 64
_MAX_DOMAIN: Final = 253
_MAX_LABEL: Final = 63
_NO_LOCAL: Final = re.compile(r"[^A-Za-z0-9!#$%&'*+/=?^_`{|}~.\u0080-\U0010ffff-]")
_NO_DOMAIN: Final = re.compile(r"[^A-Za-z0-9.\u0080-\U0010ffff-]")
_FOREIGN: Final = re.compile(r"[^\w\0-\x7f]")
"""Characters that are neither ASCII nor alphanumeric in any script."""
_FIRST: Final = re.compile(r".", re.S)
_JOINERS: Final = "\u200c\u200d\u00b7\u30fb\u0375\u05f3\u05f4"
"""Allowed between some characters (RFC 5892, appendix A)."""
_RESERVED_LABEL: Final = re.compile(r"(?:^|\.)(?!xn)..--", re.I)


def is_usual(value: str) -> bool:
    """Whether it is certainly an address: the quick answer for nearly all of them."""
    return len(value) <= _USUAL_LENGTH and _USUAL(value) is not None


def are_usual(values: Sequence[str]) -> bool:
    """Whether `is_usual` holds for each of them."""
    return _ALL_USUAL("\n".join(values) + "\n") is not None


@lru_cache(maxsize=1)  # an item with a fault is read a second time
def find_fault(value: str) -> str | None:
    """Why this text without white space around it is no e-mail address, or None."""
    local, at, domain = value.rpartition("@")
    if not at:
        return "it needs an @-sign, as in name@example.com"
    if len(local.encode("utf-8", "surrogatepass")) > _MAX_LOCAL:
        return f"the part before the @-sign is longer than {_MAX_LOCAL} bytes"
    if "." not in domain:
        return "the part after the @-sign needs a dot, as in example.com"
    if _is_number(domain):
        return "the part after the @-sign ends like a number, as no top-level domain does; a name is needed there"
    return _find_domain_fault(domain) or _find_local_fault(local)


def _is_number(domain: str) -> bool:
    """Whether the last label cannot be a top-level domain: all of these end alphabetically (RFC 3696, section 2)."""
    last = domain.rpartition(".")[2]
    if not last.isascii():
        last = unicodedata.normalize("NFKC", last)
    return bool(last) and last.isascii() and not last[-1].isalpha()


def _find_domain_fault(domain: str) -> str | None:
    found = _NO_DOMAIN.search(domain) or next(filter(_is_no_letter, _FOREIGN.finditer(domain)), None)
    if found is not None:
        return f"the part after the @-sign contains invalid characters, for example {_show(found[0])}"
    if len(domain) > _MAX_DOMAIN:
        return f"the part after the @-sign is longer than {_MAX_DOMAIN} characters"
    if domain[0] == "." or domain[-1] == "." or ".." in domain:
        return "in the part after the @-sign a period is at the beginning, at the end or beside another one"
    if domain[0] == "-" or domain[-1] == "-" or ".-" in domain or "-." in domain:
        return "in the part after the @-sign a name begins or ends with a hyphen"
    if _RESERVED_LABEL.search(domain):
        return "in the part after the @-sign two hyphens follow two characters"
    if domain.isascii() and "xn--" not in domain.lower():
        long = max(map(len, domain.split("."))) > _MAX_LABEL
    else:
        labels = [*map(_encode_label, domain.split("."))]
        if None in labels:
            return "the part after the @-sign is not a valid internationalized name (IDNA)"
        long = max(len(label or "") for label in labels) > _MAX_LABEL
    return f"in the part after the @-sign a name is longer than {_MAX_LABEL} characters" if long else None


def _is_no_letter(found: re.Match[str]) -> bool:
    return unicodedata.category(found[0])[0] != "M" and found[0] not in _JOINERS


def _encode_label(label: str) -> str | None:
    """A part of a domain as DNS has it; None if it is none in any script."""
    if label.isascii():
        if not label.lower().startswith("xn--"):
            return label
        try:
            meant = punycode_decode(label[4:], "strict")
        except (UnicodeError, ValueError, OverflowError):
            return None
        return None if meant.isascii() or _encode_label(meant) is None else label
    if unicodedata.category(label[0])[0] == "M" or any(map(_is_no_letter, _FOREIGN.finditer(label))):
        return None
    # Punycode takes at least one letter for each of these, and a mark before them: more is not counted.
    return f"xn--{label}"


def _find_local_fault(local: str) -> str | None:
    if not local:
        return "there is nothing before the @-sign"
    found = _NO_LOCAL.search(local)
    if found is None and not local.isascii():
        found = next(filter(_is_unsafe, _FOREIGN.finditer(local)), None)
        if found is None and unicodedata.category(local[0])[0] == "M":
            found = _FIRST.match(local)
    if found is not None:
        return f"the part before the @-sign contains invalid characters, for example {_show(found[0])}"
    if local[0] == "." or local[-1] == "." or ".." in local:
        return "the part before the @-sign begins or ends with a period, or has two in a row"
    return None


def _is_unsafe(found: re.Match[str]) -> bool:
    return unicodedata.category(found[0])[0] in "ZC"


def _show(character: str) -> str:
    return f"'{character}'" if character.isprintable() else f"U+{ord(character):04X}"
