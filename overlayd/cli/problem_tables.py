"""The tables of problems in docs/, out of the registry of their codes: `make problems` writes them.

A table stands between two comments in its page; all else there is written by hand.  A test compares the pages with
what would be written.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from overlayd.core.status.registry import REGISTRY, TRUE_WHEN, ConditionType, Severity

BEGIN, END = "<!-- from core/status/registry.py, by `make problems` -->", "<!-- end -->"
_PLACE = re.compile(f"{re.escape(BEGIN)}\n.*?{re.escape(END)}", re.DOTALL)


def pages(docs: Path) -> dict[Path, str]:
    """Return the text of each page with its tables renewed.  Raises ValueError if a page has no place for them."""
    texts = {"operations.md": _conditions(), "troubleshooting.md": _problems()}
    return {docs / name: _insert(docs / name, "\n".join(lines)) for name, lines in texts.items()}


def _insert(page: Path, tables: str) -> str:
    text, places = _PLACE.subn(lambda _: f"{BEGIN}\n{tables}\n{END}", page.read_text())
    if places != 1:
        raise ValueError(f"{page} has {places} places for tables of problems, not one: {BEGIN} … {END}")
    return text


def _codes(about: ConditionType) -> Iterator[str]:
    return (row.code for row in REGISTRY.values() if row.about is about)


def _conditions() -> Iterator[str]:
    yield "| condition | true when | problems |"
    yield "|---|---|---|"
    for about, claim in TRUE_WHEN.items():
        codes = ", ".join(f"`{code}`" for code in _codes(about))
        yield f"| `{about.value}` | {claim} | {codes} |"


def _problems() -> Iterator[str]:
    for about, claim in TRUE_WHEN.items():
        if not any(_codes(about)):
            continue
        yield f"\n### {about.value}: {claim}\n"
        yield "| symptom | cause | command |"
        yield "|---|---|---|"
        for row in REGISTRY.values():
            if row.about is about:
                end = ". The node is not ready" if row.severity is Severity.UNREADY else ""
                yield f"| `{row.code}` | {row.meaning}{end} | {row.remedy} |"
    yield ""


def main() -> None:
    for page, text in pages(Path(sys.argv[1])).items():
        page.write_text(text)


if __name__ == "__main__":
    main()
