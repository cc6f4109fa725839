"""The command line: one file per verb, each with `configure(parser)` and `run(args) -> exit status`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from overlayd import __version__

VERBS = {
    "run": "the daemon of this node",
    "status": "what the daemon of this node says about itself and its peers",
    "config": "show, check or set the network config of the cluster",
    "leases": "list, reserve and release the subnets of the cluster",
    "cleanup": "take away all that overlayd put into this host's kernel",
    "lab": "a whole cluster on this machine, as network namespaces",
    "bench": "how fast packets cross, by each way to carry them",
    "bundle": "one archive for a bug report: what this node knows, and what its kernel holds",
    "completion": "what a shell needs so that TAB completes verbs and options",
}


class CommandError(Exception):
    """A command can't go on: the sentence goes to standard error, `status` becomes the exit status."""

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


def build_parser(only: str | None = None) -> argparse.ArgumentParser:
    """The whole command line; with `only`, the options of that verb alone, so that the others stay unimported."""
    parser = argparse.ArgumentParser(prog="overlayd", description="An overlay network daemon.")
    parser.add_argument("--version", action="version", version=f"overlayd {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for verb, summary in VERBS.items():
        sub = verbs.add_parser(verb, help=summary, description=summary)
        if only in (None, verb):
            import_module(f"overlayd.cli.{verb}").configure(sub)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    if "_ARGCOMPLETE" in os.environ:  # a shell asks what may follow
        import argcomplete

        argcomplete.autocomplete(build_parser())
    args = build_parser(arguments[0] if arguments else "").parse_args(arguments)
    try:
        status: int = import_module(f"overlayd.cli.{args.verb}").run(args)
    except CommandError as error:
        print(f"overlayd {args.verb}: {error}", file=sys.stderr)
        return error.status
    return status
