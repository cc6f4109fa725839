"""The build of overlayd's package: setuptools, with manual pages made from the command line by argparse-manpage.

A wheel needs the parsers, so its build needs what they import. An editable install has no manual pages, and so no
further needs. `python deploy/build_backend.py DIRECTORY` writes the pages alone.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import (
    build_editable,
    build_sdist,
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

TOP = Path(__file__).parents[1]
PAGES = TOP / "build/man"
"""The directory that pyproject.toml installs from."""
NEEDS = ["argparse-manpage>=4.6", "msgspec>=0.19", "trio>=0.35"]
"""The generator, and all that the parsers import."""
SECTION = 8
"""Of the manual: commands for the system's administrator (man(1))."""
FILES = r"""
.TP
.I /etc/overlayd/overlayd.env
Options of \fBoverlayd run\fR for systemd, each as OVERLAYD_\fIOPTION\fR.
.TP
.I /var/lib/overlayd/node.json
The identity of this node. It must survive a reboot.
.TP
.I /run/overlayd/
The status socket, and the state that \fBoverlayd cleanup\fR needs.
.TP
.I /run/flannel/subnet.env
Subnet and MTU of this node, for the CNI plugin.
""".strip()


def get_requires_for_build_wheel(config_settings: Any = None) -> list[str]:
    """List the needs of setuptools and of the pages."""
    return [*build_meta.get_requires_for_build_wheel(config_settings), *NEEDS]


def build_wheel(wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None) -> str:
    """Write the pages, then build a wheel with them.  Returns its file name."""
    write_pages(PAGES)
    name: str = build_meta.build_wheel(wheel_directory, config_settings, metadata_directory)
    return name


def write_pages(directory: Path) -> None:
    """Write one page for each verb, and one that leads to them."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in make_pages().items():
        (directory / name).write_text(text)


def make_pages() -> dict[str, str]:
    """Return the text of each page by its file's name."""
    sys.path[:0] = [str(TOP), str(TOP / "backends")]
    from overlayd.cli import EXIT_STATUS, VERBS, build_parser

    whole = build_parser()
    [verbs] = [action for action in whole._actions if action.dest == "verb"]
    choices: Any = verbs.choices
    pages = {}
    for verb, summary in VERBS.items():
        parser, name = choices.pop(verb), f"overlayd-{verb}"
        parser.epilog = None  # the page has a section for it
        statuses = "\n".join(f".TP\n{status}\n{meaning}" for status, meaning in EXIT_STATUS[verb].items())
        pages[f"{name}.{SECTION}"] = _page(name, summary, parser, "EXIT STATUS", statuses)
    pages[f"overlayd.{SECTION}"] = _page("overlayd", "an overlay network daemon", whole, "FILES", FILES)
    return pages


def _page(name: str, summary: str, parser: Any, section: str, text: str) -> str:
    from argparse_manpage.manpage import Manpage

    from overlayd import __version__

    page = Manpage(parser)
    page.prog, page.description = name, summary
    page.section, page.manual, page.date = SECTION, "System administration", ""
    page.source = f"overlayd {__version__}"
    page.add_section(section, "=", text)
    return str(page)


if __name__ == "__main__":
    write_pages(Path(sys.argv[1]))
