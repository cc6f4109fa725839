"""The words lint finds what it is there for, and lets pass what is right."""

from __future__ import annotations

import pytest

from support.words import Kind, Passage, check, find_faults, read_markdown, read_python, split_sentences

LONG = "The daemon leases a subnet " + "and another one " * 7 + "in etcd."


def faults(kind: Kind, text: str) -> list[str]:
    return list(find_faults(Passage(1, kind, text)))


@pytest.mark.parametrize(
    "word", ["wish", "Aims", "seldom", "anew", "reckoned", "whomever", "somebody's", "of etcd's,"]
)
def test_ban_list_holds_in_every_kind_of_text(word: str) -> None:
    for kind in Kind:
        assert [fault for fault in faults(kind, f"Set {word} now") if "list of words" in fault], (kind, word)


@pytest.mark.parametrize("text", ["claim the subnet", "wishbone", "the CA bundle of etcd's server", "renewal"])
def test_ban_list_knows_words_by_their_ends(text: str) -> None:
    assert faults(Kind.COMMENT, text) == []


@pytest.mark.parametrize("kind", [Kind.DOCUMENT, Kind.HELP, Kind.MESSAGE])
def test_openings_and_lengths_are_held_in_text_for_users(kind: Kind) -> None:
    assert "begins with 'What'" in faults(kind, "It runs. What it needs is listed.")[0]
    assert "begins with 'Who'" in faults(kind, "Who holds it is written there.")[0]
    assert "a sentence of 28 words" in faults(kind, LONG)[0]
    assert faults(kind, "What does it need? A lease.") == []
    assert faults(Kind.COMMENT, f"What it needs. {LONG}") == []


@pytest.mark.parametrize("text", ["the file; absent: none", "all of them by default", "the mode (default is c)"])
def test_help_names_its_default_in_one_form(text: str) -> None:
    assert len(faults(Kind.HELP, text)) == 1
    assert faults(Kind.HELP, "the mode (default: c)") == []


@pytest.mark.parametrize(
    "text", ["The lease.", "Takes the lease.", "Taking it.", "`x` or None", "What is there.", "Raises KeyError."]
)
def test_docstring_of_a_function_begins_with_a_verb(text: str) -> None:
    assert len(faults(Kind.FUNCTION, text)) == 1


@pytest.mark.parametrize("text", ["Take the lease.", "Pass it on.", "Re-read it.", "Feed the loop."])
def test_imperatives_are_known(text: str) -> None:
    assert faults(Kind.FUNCTION, text) == []


def test_docstring_of_a_class_begins_with_a_noun() -> None:
    assert len(faults(Kind.CLASS, "What a node knows.")) == 1
    assert faults(Kind.CLASS, "A node's knowledge.") == []


@pytest.mark.parametrize("path", ["/work/" + "x/y.py", "/home/" + "ann/x", "/root/" + "x"])
def test_private_paths_are_found(path: str) -> None:
    assert "names a path" in faults(Kind.COMMENT, f"see {path}")[0]
    assert faults(Kind.COMMENT, "see /run/overlayd/node.json and tests/work/x") == []


def test_python_is_read_by_what_its_texts_are_for() -> None:
    source = (
        '"""Module."""\n'
        "def f(p):\n"
        '    """Do it."""\n'
        '    p.add_argument("--x", help="what it "\n        f"is {p}")\n'
        '    raise CommandError(f"no {p} is there")  # why\n'
        "class C:\n"
        '    """A thing."""\n'
        "    x = 1\n"
        '    """Seconds of it."""\n'
        'log("peer joined")\n'
        'Problem("a-code", "it is down", "Set it up")\n'
    )
    found = {(passage.kind, passage.text) for passage in read_python(source)}
    assert found == {
        (Kind.DOCSTRING, "Module."),
        (Kind.FUNCTION, "Do it."),
        (Kind.HELP, "what it is X"),
        (Kind.MESSAGE, "no X is there"),
        (Kind.COMMENT, "why"),
        (Kind.CLASS, "A thing."),
        (Kind.DOCSTRING, "Seconds of it."),
        (Kind.STRING, "peer joined"),
        (Kind.MESSAGE, "it is down"),
        (Kind.MESSAGE, "Set it up"),
    }


def test_docstring_of_a_property_a_fixture_and_a_test_needs_no_verb() -> None:
    for head in ("@property\n", "@pytest.fixture(scope='module')\n"):
        [passage] = read_python(f'{head}def f():\n    """The thing."""\n')
        assert passage.kind is Kind.DOCSTRING
    [passage] = read_python('def test_f():\n    """The thing."""\n')
    assert passage.kind is Kind.DOCSTRING


def test_markdown_is_read_without_its_code() -> None:
    text = (
        "# Title\n\nOne line\nand the next, `a b c`.\n\n- an item\n  of two lines\n- [another](x.md)\n\n"
        "    wish --code\n\n```\nwish\n```\n\n| a `b \\| c` | d |\n|---|---|\n| e | f |\n"
    )
    assert [(passage.line, passage.text) for passage in read_markdown(text)] == [
        (1, "Title"),
        (3, "One line\nand the next, Code."),
        (6, "an item\n  of two lines"),
        (8, "another"),
        (16, "a Code"),
        (16, "d"),
        (18, "e"),
        (18, "f"),
    ]


def test_sentences_end_where_they_end() -> None:
    text = "It runs, e.g. here. etcd is up. A lease is kept.  (It is not 2.5 s.) Why? See this:\n- a list"
    assert list(split_sentences(text)) == [
        "It runs, e.g. here.",
        "etcd is up.",
        "A lease is kept.",
        "(It is not 2.5 s.)",
        "Why?",
        "See this",
        "- a list",
    ]


def test_a_fault_is_told_with_its_place() -> None:
    assert list(check("docs/x.md", "Fine.\n\nWhat it does.\n")) == [
        "docs/x.md:3: a sentence begins with 'What': name the thing"
    ]
    assert list(check("a/x.c", "int x;\n/* more seldom */\n")) == [
        "a/x.c:2: 'seldom' is on the list of words not to use"
    ]
