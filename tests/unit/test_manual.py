"""The manual pages say what `--help` says, and roff can read them."""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from overlayd.cli import VERBS, build_parser
from overlayd.cli.manual import EXIT_STATUS, pages

TOP = Path(__file__).parents[2]
PAGES = TOP / "docs" / "man"


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                yield from parsers(sub)


def test_the_pages_in_the_repository_are_those_of_this_command_line() -> None:
    made = pages(build_parser())
    assert {path.name for path in PAGES.glob("*.8")} == made.keys(), "run `make man`"
    for name, text in made.items():
        assert (PAGES / name).read_text() == text, f"{name} is out of date: run `make man`"


def test_every_option_and_argument_has_a_sentence_of_help() -> None:
    for parser in parsers(build_parser()):
        for action in parser._actions:
            if action.option_strings:
                assert action.help, f"{parser.prog} {action.option_strings}"


def test_every_verb_has_its_exit_statuses() -> None:
    assert EXIT_STATUS.keys() == VERBS.keys()


def test_no_page_tells_of_the_machine_that_it_was_made_on() -> None:
    import socket

    for name, text in pages(build_parser()).items():
        assert f"default: {socket.gethostname()})" not in text, name
        assert str(Path.home()) not in text or Path.home() == Path("/"), name


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_is_told_of_in_the_documentation(verb: str) -> None:
    told = "".join(path.read_text() for path in (TOP / "README.md", *(TOP / "docs").glob("*.md")))
    assert re.search(rf"\boverlayd {verb}\b", told)


def test_each_option_of_the_daemon_is_told_of_in_the_documentation() -> None:
    told = "".join(path.read_text() for path in (TOP / "README.md", *(TOP / "docs").glob("*.md")))
    [daemon] = [parser for parser in parsers(build_parser("run")) if parser.prog == "overlayd run"]
    options = [option for action in daemon._actions for option in action.option_strings if option[:2] == "--"]
    assert [option for option in options if option not in told and option != "--help"] == []


def test_roff_reads_every_page_without_complaint() -> None:
    if shutil.which("groff") is None:
        pytest.skip("needs groff")
    for name, text in pages(build_parser()).items():
        done = subprocess.run(
            ["groff", "-man", "-Tutf8", "-ww", "-z"], input=text, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, ""), name
