"""The manual pages say what `--help` says, and roff can read them."""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from build_backend import make_pages
from overlayd.cli import EXIT_STATUS, VERBS, build_parser
from support.words import Kind, Passage, find_faults

TOP = Path(__file__).parents[2]


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                yield from parsers(sub)


def test_every_verb_has_a_page_with_its_options_and_statuses() -> None:
    pages = make_pages()
    assert pages.keys() == {"overlayd.8", *(f"overlayd-{verb}.8" for verb in VERBS)}
    for parser in parsers(build_parser()):
        page = pages["-".join(parser.prog.split()[:2]) + ".8"]
        for action in parser._actions:
            for option in action.option_strings:
                assert option.replace("-", r"\-") in page or option in ("-h", "--help"), (parser.prog, option)
    for verb, statuses in EXIT_STATUS.items():
        for status, meaning in statuses.items():
            assert f".TP\n{status}\n{meaning}" in pages[f"overlayd-{verb}.8"]
    assert "/var/lib/overlayd/node.json" in pages["overlayd.8"]


def test_every_option_and_argument_has_a_sentence_of_help() -> None:
    for parser in parsers(build_parser()):
        for action in parser._actions:
            assert action.help or isinstance(action, argparse._SubParsersAction), f"{parser.prog} {action.dest}"


def test_help_follows_the_rules_of_prose() -> None:
    for parser in parsers(build_parser()):
        said = [parser.description, parser.epilog, *(action.help for action in parser._actions)]
        for text in filter(None, said):
            assert list(find_faults(Passage(0, Kind.HELP, text))) == [], (parser.prog, text)


def test_every_verb_has_its_exit_statuses() -> None:
    assert EXIT_STATUS.keys() == VERBS.keys()


def test_no_page_tells_of_the_machine_that_it_was_made_on() -> None:
    import socket

    for name, text in make_pages().items():
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
    for name, text in make_pages().items():
        done = subprocess.run(
            ["groff", "-k", "-man", "-Tutf8", "-ww", "-z"], input=text, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, ""), name
