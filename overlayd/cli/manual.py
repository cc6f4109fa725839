"""The manual pages, made from the command line itself: one for each verb, and one that leads to them.

`python -m overlayd.cli.manual DIRECTORY` writes them.  What a parser cannot know, exit statuses and where to read
on, stands here; everything else is said once, in the options' own help.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from overlayd import __version__
from overlayd.cli import build_parser

SECTION = 8
"""Of the manual: commands for the system's administrator (man(1))."""

EXIT_STATUS = {
    "run": {
        0: "It was told to stop.",
        1: "It can't start, or can't go on; the reason is on standard error.",
        2: "An option has a wrong value, or asks for what this host does not have.",
        3: "Its subnet was lost and another one leased, with \\fB\\-\\-on\\-subnet\\-change=exit\\fR.",
    },
    "status": {
        0: "Healthy.",
        1: "Degraded: the problems are listed last.",
        2: "Cannot tell: no daemon answers, or what it knows is too old.",
    },
    "config": {0: "Done.", 1: "The config is not valid, or was not written.", 2: "etcd can't be asked."},
    "leases": {0: "Done.", 1: "Not done; the reason is on standard error.", 2: "etcd can't be asked."},
    "cleanup": {
        0: "Nothing of overlayd is left.",
        1: "Something is left; it is named.",
        2: "The kernel is clean, but the lease was not released.",
    },
    "bundle": {0: "The archive is written.", 1: "It could not be written."},
    "completion": {0: "Done."},
    "lab": {0: "Done.", 1: "Not done, or a check failed.", 2: "The command makes no sense for this lab."},
    "bench": {
        0: "Every ratio that was measured is as it must be.",
        1: "One is not, or nothing could be measured; the reason is on standard error.",
        3: "Void: the baseline was too slow to measure anything by.",
    },
}
FILES = {
    "/etc/overlayd/overlayd.env": "Options of \\fBoverlayd run\\fR for systemd, each as OVERLAYD_\\fIOPTION\\fR.",
    "/var/lib/overlayd/node.json": "The identity of this node. It must survive a reboot.",
    "/run/overlayd/": "The status socket, and what \\fBoverlayd cleanup\\fR has to know.",
    "/run/flannel/subnet.env": "Subnet and MTU of this node, for flannel's CNI plugin.",
}


def pages(parser: argparse.ArgumentParser) -> dict[str, str]:
    """The text of each page by its file's name."""
    verbs = _verbs(parser)
    made = {f"overlayd.{SECTION}": _main_page(parser, verbs)}
    for verb, (summary, sub) in verbs.items():
        made[f"overlayd-{verb}.{SECTION}"] = _page(verb, summary, sub)
    return made


def _main_page(parser: argparse.ArgumentParser, verbs: dict[str, tuple[str, argparse.ArgumentParser]]) -> str:
    lines = [_title("overlayd"), ".SH NAME", f"overlayd \\- {_text(_sentence(parser.description))}"]
    lines += [".SH SYNOPSIS", ".B overlayd", "\\fIVERB\\fR ...", ".SH VERBS"]
    for verb, (summary, _) in verbs.items():
        lines += [".TP", f".BR overlayd\\-{_text(verb)} ({SECTION})", _text(summary)]
    lines.append(".SH FILES")
    for file, purpose in FILES.items():
        lines += [".TP", f".I {_text(file)}", purpose]
    return _joined(lines)


def _page(verb: str, summary: str, parser: argparse.ArgumentParser) -> str:
    lines = [_title(f"overlayd-{verb}"), ".SH NAME", f"overlayd\\-{_text(verb)} \\- {_text(summary)}"]
    lines += [".SH SYNOPSIS", *_synopsis(parser)]
    inner = _verbs(parser)
    lines += [".SH OPTIONS", *_arguments(parser)] if not inner else []
    for name, (purpose, sub) in inner.items():
        lines += [f".SH {_text(f'{verb} {name}').upper()}", _text(_sentence(purpose)), *_synopsis(sub)]
        lines += _arguments(sub)
    if verb in EXIT_STATUS:
        lines.append(".SH EXIT STATUS")
        for status, meaning in EXIT_STATUS[verb].items():
            lines += [".TP", f".B {status}", meaning]
    others = [f".BR overlayd ({SECTION})"]
    return _joined([*lines, ".SH SEE ALSO", *others])


def _title(name: str) -> str:
    return f'.TH {_text(name).upper()} {SECTION} "" "overlayd {__version__}" "System administration"'


def _synopsis(parser: argparse.ArgumentParser) -> Iterator[str]:
    usage = " ".join(parser.format_usage().removeprefix("usage: ").split())
    yield ".PP"
    yield f".B {_text(parser.prog)}"
    yield _text(usage.removeprefix(parser.prog).strip())


def _arguments(parser: argparse.ArgumentParser) -> Iterator[str]:
    # argparse keeps its actions to itself; everybody who documents or completes a command line reads them here
    for action in parser._actions:
        if action.help is argparse.SUPPRESS or isinstance(action, argparse._SubParsersAction):
            continue
        names = ", ".join(f"\\fB{_text(option)}\\fR" for option in action.option_strings)
        value = "" if action.nargs == 0 else _value(action)
        yield ".TP"
        yield " ".join(filter(None, (names, value)))
        yield _text(_sentence((action.help or "") % {"default": action.default}))


def _value(action: argparse.Action) -> str:
    if isinstance(action.metavar, str):
        return f"\\fI{_text(action.metavar)}\\fR"
    if action.choices is not None:
        return "|".join(f"\\fB{_text(str(choice))}\\fR" for choice in action.choices)
    return f"\\fI{_text(action.dest.upper())}\\fR"


def _verbs(parser: argparse.ArgumentParser) -> dict[str, tuple[str, argparse.ArgumentParser]]:
    found: dict[str, tuple[str, argparse.ArgumentParser]] = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            summaries = {choice.dest: choice.help or "" for choice in action._choices_actions}
            found |= {name: (summaries[name], sub) for name, sub in action.choices.items()}
    return found


def _sentence(text: str | None) -> str:
    words = " ".join((text or "").split())
    return words[:1].upper() + words[1:] + ("" if not words or words.endswith((".", "]", ")")) else ".")


def _text(text: str) -> str:
    """Plain text as roff(7) takes it literally."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("…", "...")
    return re.sub(r"^\.", r"\\&.", escaped)


def _joined(lines: list[str]) -> str:
    return "\n".join(line for line in lines if line) + "\n"


def main() -> None:
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in pages(build_parser()).items():
        (directory / name).write_text(text)


if __name__ == "__main__":
    main()
