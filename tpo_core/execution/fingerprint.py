"""What a step would compute, as one hash, and what differs between two of them.

A fingerprint covers the step's name, version and identity and the fingerprints of its inputs. Where results are kept
and how a step is carried out stay out of it, so that moving a bucket recomputes nothing.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

MISSING = "nothing"


def canonical(value: Any) -> str:
    """The one JSON text of a value: sorted keys, no spaces. TypeError or ValueError for what JSON cannot hold."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def fingerprint(name: str, version: int, identity: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """Hex SHA-256 over all that determines a result; `inputs` maps a step's name to its fingerprint."""
    text = canonical({"step": name, "version": version, "identity": dict(identity), "inputs": dict(inputs)})
    return hashlib.sha256(text.encode()).hexdigest()


def differences(old: Any, new: Any, path: str = "") -> Iterator[str]:
    """`a.b.c 1 -> 2` for each field that differs; list items go by their `name` where all have one."""
    old_fields, new_fields = _fields(old), _fields(new)
    if old_fields is None or new_fields is None:
        if canonical(old) != canonical(new):
            yield f"{path or 'value'} {_short(old)} -> {_short(new)}"
        return
    for key in dict.fromkeys([*old_fields, *new_fields]):
        where = f"{path}.{key}" if path else key
        if key not in old_fields:
            yield f"{where} {MISSING} -> {_short(new_fields[key])}"
        elif key not in new_fields:
            yield f"{where} {_short(old_fields[key])} -> {MISSING}"
        else:
            yield from differences(old_fields[key], new_fields[key], where)


def _fields(value: Any) -> dict[str, Any] | None:
    """A mapping, or a list of named items, as a dict; None for a plain value."""
    if isinstance(value, dict):
        return {str(key): item for key, item in value.items()}
    if isinstance(value, list) and value and all(isinstance(item, dict) and "name" in item for item in value):
        return {str(item["name"]): item for item in value}
    return None


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 48 else f"{text[:45]}..."
