"""The OpenAPI document as one self-contained page: no script, nothing loaded from anywhere."""

import json
import re
from html import escape
from importlib.resources import files
from typing import Any, Final

from app.http import problems

_STYLE: Final = files(__package__).joinpath("page.css").read_text()


def render_page(document: dict[str, Any]) -> str:
    info = document["info"]
    parts = [
        _head(f"{info['title']} API"),
        f"<h1>{escape(info['title'])} <small>{escape(info['version'])}</small></h1>",
        f"<p>{_prose(info['summary'])}<p>{_prose(info['description'])}",
        '<nav><a href="/openapi.json">openapi.json</a><a href="/openapi.yaml">openapi.yaml</a>',
        f'<a href="{problems.PAGE}">problems</a></nav>',
    ]
    for tag in document["tags"]:
        parts.append(f"<h2 id={tag['name']}>{tag['name'].title()}</h2><p>{_prose(tag['description'])}")
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                if tag["name"] in operation["tags"]:
                    parts.append(_render_operation(document, path, method, operation))
    parts.append("<h2 id=schemas>Schemas</h2>")
    for name, schema in document["components"]["schemas"].items():
        parts.append(f"<details id=schema-{name}><summary>{name}</summary>{_render_schema(schema)}</details>")
    return "".join(parts)


def render_problems() -> str:
    """Each problem that a request can be answered with, under the anchor of its `type`."""
    parts = [
        _head("Problems of the Tranche API"),
        "<h1>Problems</h1>",
        "<p>A request that fails as a whole is answered with <code>application/problem+json</code> (RFC 9457). This ",
        "is what each <code>code</code> means, and what to do. Where an answer has <code>Retry-After</code>, the same ",
        "request, with the same <code>Idempotency-Key</code>, may be sent again after so many seconds. ",
        '<a href="/docs">All operations</a>',
    ]
    for code, kind in problems.KINDS.items():
        parts.append(
            f"<h2 id={problems.anchor(code)}>{escape(kind.title)}</h2>"
            f"<p><code>{code}</code> <small>status {kind.status}</small><p>{_prose(problems.MEANINGS[code])}"
        )
    return "".join(parts)


def _head(title: str) -> str:
    return (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style>"
    )


def _render_operation(document: dict[str, Any], path: str, method: str, operation: dict[str, Any]) -> str:
    parts = [
        f"<details id={operation['operationId']}><summary><b class={method}>{method.upper()}</b> ",
        f"<code>{escape(path)}</code> {escape(operation['summary'])}</summary>",
        f"<p>{_prose(operation['description'])}",
    ]
    if parameters := operation.get("parameters"):
        rows = [
            f"<tr><td><code>{escape(p['name'])}</code><td><small>{p['in']}"
            f"{', required' if p.get('required') else ''}</small><td>{_prose(p.get('description', ''))} "
            f"<small>{escape(_brief(p['schema']))}</small>"
            for p in parameters
        ]
        parts.append(f"<table>{''.join(rows)}</table>")
    if body := operation.get("requestBody"):
        for media_type, content in body["content"].items():
            description = _prose(content["schema"].get("description", ""))
            parts.append(
                f"<p>Body: <code>{media_type}</code> {_link(content['schema'])} {description}{_example(content)}"
            )
    rows = []
    for status, response in operation["responses"].items():
        found = _resolve(document, response)
        names = ", ".join(f"<code>{escape(n)}</code>" for n in found.get("headers", {}))
        rows.append(
            f"<tr><td><b>{status}</b><td>{_prose(found['description'])} <small>{names}</small>"
            + "".join(
                f" {_link(c['schema'])}{_example(c)}" for c in found.get("content", {}).values() if int(status) < 300
            )
        )
    return "".join([*parts, f"<table>{''.join(rows)}</table></details>"])


def _render_schema(schema: dict[str, Any]) -> str:
    parts = [f"<p>{_prose(schema.get('description', ''))}"]
    if "enum" in schema:
        parts.append(f"<p>{' '.join(f'<code>{escape(str(v))}</code>' for v in schema['enum'])}")
    rows = [
        f"<tr><td><code>{escape(name)}</code>"
        f"<td><small>{'required' if name in schema.get('required', ()) else ''}</small>"
        f"<td>{_prose(member.get('description', ''))} <small>{escape(_brief(member))}</small>"
        for name, member in schema.get("properties", {}).items()
    ]
    return "".join([*parts, f"<table>{''.join(rows)}</table>"])


def _resolve(document: dict[str, Any], value: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in value:
        return value
    found: Any = document
    for name in value["$ref"].removeprefix("#/").split("/"):
        found = found[name]
    return dict(found)


def _link(schema: dict[str, Any]) -> str:
    """To the named schemas that this one is made of."""
    names = sorted(set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(schema))))
    return " ".join(f'<a href="#schema-{name}">{name}</a>' for name in names)


def _brief(schema: dict[str, Any]) -> str:
    """A schema in a few words."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        return " | ".join(_brief(one) for one in schema["anyOf"])
    if "enum" in schema:
        return " | ".join(str(value) for value in schema["enum"])
    words = [str(schema.get("format") or schema.get("type", "any"))]
    if schema.get("type") == "array":
        words = [f"[{_brief(schema.get('items', {}))}]"]
    words += [f"{name} {schema[k]:,}" for k, name in _BOUNDS.items() if k in schema]
    if "default" in schema:
        words.append(f"default {json.dumps(schema['default'])}")
    return ", ".join(words)


_BOUNDS: Final = {
    "minimum": "from",
    "maximum": "to",
    "minLength": "min. length",
    "maxLength": "max. length",
    "maxItems": "max. items",
}


def _example(content: dict[str, Any]) -> str:
    if "example" not in content:
        return ""
    example = content["example"]
    text = example if isinstance(example, str) else json.dumps(example, indent=2, ensure_ascii=False)
    return f"<pre><code>{escape(text)}</code></pre>"


def _prose(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text, quote=False))
