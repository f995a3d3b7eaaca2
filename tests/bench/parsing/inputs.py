"""Bodies of about a given size: ordinary ones, and those that were made to take long.

A unit is repeated until the size is reached; `%d` in it counts, so that nothing that was read before can be remembered.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from app.files.readers import Family, Form

Make = Callable[[int], bytes]
TEXTS: Final = (Family.JSON, Family.CSV, Family.NDJSON)
"""What is read where it arrives; a workbook is read by a process of its own."""


class Input(msgspec.Struct, frozen=True):
    """A body to be made, and how it is to be read."""

    name: str
    make: Make
    form: Form


def repeat(unit: str | bytes, *, head: str | bytes = b"", tail: str | bytes = b"", between: bytes = b"") -> Make:
    """Units one after the other."""
    pattern, begin, end = _bytes(unit), _bytes(head), _bytes(tail)

    def make(size: int) -> bytes:
        room = max(1, size - len(begin) - len(end))
        if b"%d" not in pattern:
            count = max(1, room // (len(pattern) + len(between)))
            return begin + between.join([pattern] * count) + end
        parts: list[bytes] = []
        while room > 0:
            part = pattern.replace(b"%d", b"%d" % len(parts))
            parts.append(part)
            room -= len(part) + len(between)
        return begin + between.join(parts) + end

    return make


def _bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text


def nest(opener: str, closer: str = "", *, head: str = "", tail: str = "") -> Make:
    """As many openers as there is room for, then as many closers."""

    def make(size: int) -> bytes:
        count = (size - len(head) - len(tail)) // (len(opener) + len(closer))
        return (head + opener * count + closer * count + tail).encode()

    return make


_CONTACT: Final = '{"id":"c%d","email":"ann.lee%d@example.com","first_name":"Ann","last_name":"Lee","phone":"+49 30 %d","company":"ACME"}'

_MAILS: Final = (
    "a%d", "a%d@b", "@b%d.de", "a b%d@c.de", "a..b%d@c.de", ".a%d@c.de", "a@-b%d.de", "a@b_%d.de", "a@b%d..de",
    "ä%d@c.de", "a@ä%d.de", "a@日本%d.jp", "a@مثال%d.com", "a@xn--a%d.de", "a@a-b--c%d.de", " a%d@b.de ",
    "a\\u0000%d@b.de",
    "a@" + "b%d." * 20 + "de", "a" * 70 + "%d@b.de", "a@" + "ä" * 60 + "%d.de",
)  # fmt: skip

ITEMS: Final = (
    "1", "x", "-", "tru", "null", '"a"', "1e999", "9" * 400, "[]", "[1]", "[1,2,3,4,5,6,7,8]", "{}", "{ }", "{x}",
    '{"a"}', '{"a":}', '{"a":1}', '{"a":1,"a":1}', '{"%d":1}', '{"id":1}', '{"id":""}', '{"id":"%d"}',
    '{"id":"\\u0000","email":"a@b.de"}', '{"id":"\\ud800","email":"a@b.de"}', '{"id":"' + "a" * 300 + '","email":"a@b.de"}',
    '{"id":"%d","email":null}', '{"id":"%d","email":1}', '{"id":"%d","email":"a@b.de","phone":"none"}',
    '{"id":"%d","email":"a@b.de","phone":"' + "x" * 100 + '"}', '{"id":"%d","email":"a@b.de","if_version":-1}',
    '{"id":"%d","email":"a@b.de","if_version":' + "9" * 300 + "}", '{"id":"%d","email":"a@b.de","attributes":1}',
    '{"id":"%d","email":"a@b.de","attributes":{"a":1e400}}', '{"id":"%d","email":"a@b.de","attributes":{"":1}}',
    '{"id":"%d","email":"a@b.de","attributes":{"a":{"a":1,"a":1}}}',
    '{"id":"%d","email":"a@b.de","attributes":' + '{"a":' * 33 + "1" + "}" * 34,
    '{"id":"%d","email":"a@b.de","attributes":' + "[" * 200 + "]" * 200 + "}",
    '{"id":"%d","email":"a@b.de","attributes":{' + ",".join(f'"k{k}":"\\u0000"' for k in range(300)) + "}}",
    '{"id":"%d","email":"a@b.de","attributes":{' + ",".join(f'"k{k}":[{{}}]' for k in range(300)) + "}}",
    '{"ab%d":1,"bd%d":2,"emaij%d":2}', "{" + ",".join(f'"f{k}%d":1' for k in range(30)) + "}",
    '{"frist_name%d":"a","lats_name%d":"b","compnay%d":"c"}', '{"id":"1","email":"a@b.de"}',
    *(f'{{"id":"%d","email":"{mail}"}}' for mail in _MAILS),
)  # fmt: skip
"""Of JSON and NDJSON alike: their quotes and brackets balance."""

_NDJSON: Final[dict[str, Make]] = {
    "blank lines": repeat("\n"),
    "lines of a space": repeat(" \n"),
    "lines of CR LF": repeat("\r\n"),
    "lone CR": repeat("\r"),
    "one byte a line": repeat("{\n"),
    "closing brackets": repeat("}\n"),
    "open quotes": repeat('"\n'),
    "bytes that are no text": repeat(b'{"id":"\xff"}\n'),
    "one line of brackets": repeat("["),
    "one line of objects": repeat('{"a":'),
    "one line of text": repeat("a", head='{"id":"', tail='"}\n'),
    "one line of backslashes": repeat("\\\\", head='{"id":"', tail='"}\n'),
    "one line of escapes": repeat("\\u0041", head='{"id":"', tail='"}\n'),
    "one line of white space": repeat(" ", head='{"id":"1"', tail="}\n"),
}

_JSON: Final[dict[str, Make]] = {
    "white space": repeat(" "),
    "white space before items": repeat(" ", head='{"items":', tail="[]}"),
    "white space in items": repeat(" ", head='{"items":[', tail="]}"),
    "brackets": repeat("["),
    "brackets in items": repeat("[", head='{"items":['),
    "brackets that balance": nest("[", "]", head='{"items":[', tail="]}"),
    "braces in items": repeat('{"a":', head='{"items":['),
    "arrays of a number": repeat("[1,", head='{"items":['),
    "commas": repeat(",", head='{"items":[', tail="]}"),
    "an open string": repeat("a", head='{"items":["'),
    "an open string of backslashes": repeat("\\\\", head='{"items":["'),
    "open strings": repeat('"a', head='{"items":['),
    "a long name": repeat("a", head='{"', tail='":[]}'),
    "boundaries in a string": repeat("},{", head='{"items":[{"a":"', tail='"x}]}'),
    "boundaries without a comma": repeat("} {", head='{"items":[{', tail="}]}"),
    "boundaries of mixed brackets": repeat("],{", head='{"items":[{', tail="}]}"),
    "an item of open objects": repeat('{"a":{', head='{"items":[', tail="]}"),
    "a lone quote at the end": repeat('{"id":"%d"},', head='{"items":[', tail='"]}'),
    "items twice": repeat('{"id":"%d"},', head='{"items":[1],"items":[', tail="1]}"),
    "another member": repeat('{"id":"%d"},', head='{"a":[', tail="1]}"),
}

# ruff: noqa: E501
_CSV_BARE: Final = (
    "\n", " \n", "\r", "\r\n", ",\n", "a\n", "a,b,c\n", "a,b\n", '"\n', '""\n', '"""\n', '""""\n', '"a\n', 'a"\n', 'a","\n',
    '"a","\n', '"a"b\n', '"a""\n', '"a",b"\n', 'a,"b\n', 'a,"b\nc"\n', '"a\n\n"\n', 'a"b"c,"\n', '","\n', ',"\n', '"\r', 'a","\r',
    "\0\n", "a\0,b\n", "=1,=2\n", "'=1,'=2\n", ";\n", "\t\n", "|\n", "," * 100 + "\n", "," * 3_000 + "\n", "a," * 50 + "\n",
    '"a",' * 50 + "\n", '"",' * 50 + "\n", '"a"",' * 50 + "\n", '"' + "\n" * 50 + '"\n', '"' + "a\n" * 200 + '",b\n',
    '"' + '""' * 100 + "\n", "9" * 400 + ",a@b.de\n", "é,ü\n", "日本,語\n", "%d,a@b.de\n", "1,a@b.de\n",
)  # fmt: skip

_CSV: Final[dict[str, Make]] = {
    "one open quote, then short lines": repeat("a\n", head='id,email\n1,"'),
    "one open quote, then blank lines": repeat("\n", head='id,email\n1,"'),
    "one open quote, then doubled ones": repeat('""\n', head='id,email\n1,"'),
    "one line": repeat("a", head="id,email\n"),
    "one line of commas": repeat(",", head="id,email\n"),
    "one line of quotes": repeat('"', head="id,email\n"),
    "one line of quoted cells": repeat('"a",', head="id,email\n"),
    "blank lines before the header": repeat("\n", tail="id,email\n"),
    "a header of commas": repeat(","),
    "a header of quotes": repeat('"'),
    "a header of names": repeat("a%d,", tail="id,email\n"),
    "a header that never ends": repeat('a","\n'),
    "no id, many columns": repeat("Column number %d of many,", tail="email\n"),
    "2,000 columns of nothing": repeat(
        "," * 2_001 + "\n", head=",".join(f"c{c}" for c in range(2_000)) + ",id,email\n"
    ),
    "2,000 columns of a letter": repeat(
        "a," * 2_001 + "a\n", head=",".join(f"c{c}" for c in range(2_000)) + ",id,email\n"
    ),
    "failed rows": repeat("'=1,'+2,3,'@4,5\n", head="error_code,error_detail,retry_after_seconds,id,email\n"),
    "versions": repeat("%d,a@b.de,9999999999999999999999,x\n", head="id,email,if_version,source_version\n"),
    "phones": repeat("%d,a@b.de,none\n", head="id,email,phone\n"),
}


def _widen(make: Make) -> Make:
    return lambda size: make(size // 2).decode().encode("utf-16")


def _csv() -> list[Input]:
    form = Form(family=Family.CSV)
    found = [Input(name, make, form) for name, make in _CSV.items()]
    units = {f"rows of {unit[:12]!r}": unit for unit in _CSV_BARE}
    units |= {f"e-mail {mail[:12]}": f"%d,{mail}\n" for mail in _MAILS[:8] + _MAILS[9:16]}
    found += [Input(name, repeat(unit, head="id,email\n"), form) for name, unit in units.items()]
    wide = Form(family=Family.CSV, charset="utf-16")
    for unit in ("a\n", 'a","\n'):
        text = repeat(unit, head="id,email\n")
        found.append(
            Input(f"UTF-16 rows of {unit!r}", lambda size, t=text: t(size // 2).decode().encode("utf-16"), wide)
        )
    renamed = Form(family=Family.CSV, mapping={f"Column number {c} of many": f"a{c}" for c in range(100)})
    found.append(Input("100 renamed columns", _CSV["no id, many columns"], renamed))
    return found


def _items(family: Family) -> list[Input]:
    form = Form(family=family)
    json = family is Family.JSON
    own = _JSON if json else _NDJSON
    found = [Input(name, make, form) for name, make in own.items()]
    for item in ITEMS:
        make = repeat(item, head='{"items":[', tail="]}", between=b",") if json else repeat(item + "\n")
        found.append(Input(f"items {item[:40]}", make, form))
    return found


def ordinary(family: Family) -> Input:
    """Contacts of six fields; in CSV too."""
    if family is Family.CSV:
        make = repeat(
            "c%d,ann.lee%d@example.com,Ann,Lee,+49 30 %d,ACME\n", head="id,email,first_name,last_name,phone,company\n"
        )
    elif family is Family.JSON:
        make = repeat(_CONTACT, head='{"items":[', tail="]}", between=b",")
    else:
        make = repeat(_CONTACT + "\n")
    return Input("ordinary", make, Form(family=family))


def smallest(family: Family) -> Input:
    """The smallest items that are accepted: a row that is smaller still cannot be compared with any of its size."""
    if family is Family.CSV:
        make = repeat("%d,a@b.de\n", head="id,email\n")
    elif family is Family.JSON:
        make = repeat('{"id":"%d","email":"a@b.de"}', head='{"items":[', tail="]}", between=b",")
    else:
        make = repeat('{"id":"%d","email":"a@b.de"}\n')
    return Input("smallest", make, Form(family=family))


def hostile(family: Family) -> list[Input]:
    return _csv() if family is Family.CSV else _items(family)
