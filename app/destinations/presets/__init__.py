"""Presets of the kind `http`: options for one vendor, from the vendor's public reference, a YAML file each.

A destination stores the name of its preset and what it has chosen beside it, so it gets what a later release mends.
"""

import functools
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import msgspec

from app.destinations.options import OptionsError


class Preset(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One vendor."""

    vendor: str
    reference: str
    """URL of the documentation that it follows."""
    base_url: str
    """By default; one in capitals, such as DC, is to be replaced."""
    token: str
    """Where the vendor issues the token, and what it must be allowed to do."""
    values: dict[str, str] = {}
    """Texts that every destination must give (option `values`), and what they are."""
    notes: str = ""
    """What a user should know: how records are identified, what cannot be done."""
    options: dict[str, Any]


@functools.cache
def presets() -> dict[str, Preset]:
    """All presets by name, in alphabetical order."""
    folder = [file for file in files(__package__).iterdir() if file.name.endswith(".yaml")]
    return {
        file.name.removesuffix(".yaml"): msgspec.yaml.decode(file.read_bytes(), type=Preset)
        for file in sorted(folder, key=lambda file: file.name)
    }


def resolve_preset(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with those of their preset, without its name: `fields`, `values`, `headers` and `query` name by name.

    Raises `OptionsError`: no such preset, or it needs a value that is not given.
    """
    own = dict(options)
    name = own.pop("preset", None)
    if name is None:
        return own
    preset = presets().get(name) if isinstance(name, str) else None
    if preset is None:
        raise OptionsError(f"options.preset: {name!r} is not a preset; there are: {', '.join(presets())}.")
    values = own.get("values")
    for needed, words in preset.values.items():
        if not isinstance(values, Mapping) or not values.get(needed):
            raise OptionsError(f"options.values: the preset {name} needs {needed}: {words}.")
    merged = preset.options | own
    for option in ("fields", "values", "headers", "query"):
        theirs, ours = preset.options.get(option), own.get(option)
        if isinstance(theirs, Mapping) and isinstance(ours, Mapping):
            merged[option] = {**theirs, **ours}
    return merged
