"""Text that strangers wrote: reading it as JSON, and quoting it in a sentence.

Whatever stands in the store or in a file of the user's may be garbage, or made to harm.  Reading it costs a
bounded time, ends in a value or in a JsonError with a short reason, and depends on the text alone (not, say,
on how deep the interpreter's stack happens to be), so that all nodes judge a record alike.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence

SIZE_LIMIT = 64 * 1024
"""Bytes.  A lease has about 200, a config less than 1,000; etcd itself stops at 1.5 MiB per request."""
DEPTH_LIMIT = 32
"""Levels of nesting.  A lease or a config has three."""
QUOTE_LIMIT = 80
"""Characters of foreign text in one sentence; the longest key of a lease has 71."""

_STRING = re.compile(r'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
_BRACKET = re.compile(r"[\[\]{}]")


class JsonError(ValueError):
    """The text is not JSON that we read; the message is the end of a sentence about it."""


def quoted(value: object, limit: int = QUOTE_LIMIT) -> str:
    """Return a foreign value as it may stand in a message: one line, short, nothing that a terminal would obey."""
    if isinstance(value, str):
        text, end = repr(value[: limit + 1]), "'"
    else:
        text, end = json.dumps(value), ""
    return text if len(text) <= limit + 2 else f"{text[:limit]}…{end}"


def parse_json(raw: bytes | str) -> tuple[object, tuple[str, ...]]:
    """Parse the value, and the keys that one of its objects gives more than once, in whatever case (the last
    counts).

    Stricter than Python's own reader: UTF-8 alone, finite numbers, bounded size and depth.  Raises JsonError.
    """
    size = len(raw) if isinstance(raw, bytes) else len(raw.encode("utf-8", "surrogatepass"))
    if size > SIZE_LIMIT:
        raise JsonError(f"is larger than {SIZE_LIMIT} bytes")
    try:
        text = raw.decode() if isinstance(raw, bytes) else raw
    except UnicodeDecodeError as error:
        raise JsonError(f"is not UTF-8: {error.reason} at byte {error.start}") from error
    if not text.strip():
        raise JsonError("is empty")
    if _depth(text) > DEPTH_LIMIT:
        raise JsonError(f"is nested more than {DEPTH_LIMIT} levels deep")

    repeated: dict[str, None] = {}

    def members(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
        seen: set[str] = set()
        found: dict[str, object] = {}
        for key, value in pairs:
            if key.lower() in seen:
                repeated[key] = None
            seen.add(key.lower())
            found.pop(key, None)  # in the order of what counts: the last of each
            found[key] = value
        return found

    try:
        value = json.loads(text, object_pairs_hook=members, parse_constant=_refuse, parse_float=_finite)
    except json.JSONDecodeError as error:
        rest = text[error.pos : error.pos + 20]
        near = f" (near {quoted(rest)})" if rest else ""
        raise JsonError(f"is not JSON: {error.msg} at line {error.lineno}, column {error.colno}{near}") from error
    except JsonError:
        raise
    except ValueError as error:  # a number with more digits than int() reads
        raise JsonError("holds a number that is too large") from error
    return value, tuple(repeated)


def folded(members: dict[str, object]) -> dict[str, tuple[str, object]]:
    """Return an object by its keys in lower case: the key as it was spelled, and its value.  The last spelling
    counts."""
    return {key.lower(): (key, value) for key, value in members.items()}


def _depth(text: str) -> int:
    level = deepest = 0
    for bracket in _BRACKET.findall(_STRING.sub("", text)):
        level += 1 if bracket in "[{" else -1
        deepest = max(deepest, level)
    return deepest


def _refuse(name: str) -> object:
    raise JsonError(f"holds {name}, which is not JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise JsonError("holds a number that is too large")
    return number
