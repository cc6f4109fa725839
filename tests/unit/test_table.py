"""Tables line up on the screen, and nothing in a cell reaches the terminal as a control character."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlayd.core.text.table import GAP, WIDEST, cut, display_width, escape, format_table

texts = st.text(st.characters(), max_size=2 * WIDEST)
rows_of_three = st.lists(st.tuples(texts, texts, texts), min_size=1, max_size=5)


@given(rows_of_three)
def test_table_lines_up_and_is_printable(rows: list[tuple[str, ...]]) -> None:
    lines = [*format_table([(*row, "|") for row in rows], indent="  ")]
    assert len(lines) == len(rows)
    assert all(line.isprintable() for line in lines)
    assert len({display_width(line) for line in lines}) == 1, "so that the last column begins at one place"
    assert display_width(lines[0]) <= len("  ") + 3 * (WIDEST + len(GAP)) + 1


@given(rows_of_three)
def test_table_aligns_to_the_right(rows: list[tuple[str, ...]]) -> None:
    lines = [*format_table(rows, alignment="<>")]
    widths = {display_width(line) for line, row in zip(lines, rows, strict=True) if escape(row[2]).strip()}
    if all(escape(row[2]).rstrip() == escape(row[2]) != "" for row in rows):
        assert len(widths) == 1


def test_table_reads_well() -> None:
    rows = [("NODE", "RATE", ""), ("a", "10.5", "fine"), ("日本", "7", "\x1b[2Jgone"), ("é", "", "")]
    assert [*format_table(rows, alignment="<><", indent=" ")] == [
        " NODE  RATE",
        " a     10.5  fine",
        " 日本     7  \\x1b[2Jgone",
        " é",
    ]
    assert [*format_table([])] == []


def test_last_cell_is_not_cut() -> None:
    [line] = format_table([("x" * 100, "y" * 100)])
    assert line == "x" * (WIDEST - 1) + "…  " + "y" * 100


@pytest.mark.parametrize(
    ("text", "columns", "shown"),
    [("abc", 3, "abc"), ("abcd", 3, "ab…"), ("日本語", 5, "日本…"), ("日本語", 4, "日…"), ("ab", 1, "…")],
)
def test_cut_counts_columns_of_the_screen(text: str, columns: int, shown: str) -> None:
    assert cut(text, columns) == shown


def test_escape_leaves_nothing_that_a_terminal_obeys() -> None:
    assert escape("a\x1b[31m\n\u202eb\x7f") == "a\\x1b[31m\\n\\u202eb\\x7f"
    assert escape("node-1 ü") == "node-1 ü"
