"""The command line: one file per verb, each with `configure(parser)` and `run(args) -> exit status`."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
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


INTERRUPTED, BROKEN_PIPE = 128 + 2, 128 + 13
"""Exit status of a program that SIGINT or SIGPIPE has ended, as shells tell it (signal(7))."""


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
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal without UTF-8 is no reason to fail
            stream.reconfigure(errors="backslashreplace")
    args = build_parser(arguments[0] if arguments else "").parse_args(arguments)
    try:
        status: int = import_module(f"overlayd.cli.{args.verb}").run(args)
        sys.stdout.flush()
    except CommandError as error:
        return _end(args.verb, str(error), error.status)
    except (KeyboardInterrupt, BaseExceptionGroup, OSError) as error:
        leaves = list(_leaves(error))
        if any(isinstance(leaf, KeyboardInterrupt) for leaf in leaves):
            return INTERRUPTED
        if all(isinstance(leaf, BrokenPipeError) for leaf in leaves):
            _forget_output()
            return BROKEN_PIPE
        if not all(isinstance(leaf, OSError) for leaf in leaves):
            raise  # a fault of overlayd's own: where it happened is needed
        _forget_output()
        return _end(args.verb, str(leaves[0]), 1)
    return status


def _end(verb: str, sentence: str, status: int) -> int:
    with suppress(OSError):
        print(f"overlayd {verb}: {sentence}", file=sys.stderr)
    return status


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from _leaves(part)
    else:
        yield error


def _forget_output() -> None:
    """Let the interpreter flush what can't be written to nowhere when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
