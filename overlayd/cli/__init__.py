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
    "run": "run the daemon of this node",
    "status": "show the state of this node and its peers",
    "config": "show, check or set the network config of the cluster",
    "leases": "list, reserve and release the subnets of the cluster",
    "cleanup": "remove everything that overlayd put into this host's kernel",
    "lab": "run a whole cluster on this machine, in network namespaces",
    "bench": "measure how fast packets cross, over each backend",
    "bundle": "collect the state of this node and its kernel for a bug report",
    "completion": "print the script by which a shell completes verbs and options",
}
EXIT_STATUS = {
    "run": {
        0: "told to stop",
        1: "the daemon can't start or go on",
        2: "an option is wrong, or the host lacks what it asks for",
        3: "the subnet changed, with --on-subnet-change=exit",
    },
    "status": {0: "healthy", 1: "degraded", 2: "cannot tell: no daemon answers, or its knowledge is too old"},
    "config": {0: "done", 1: "the config is invalid, or was not written", 2: "etcd can't be asked"},
    "leases": {0: "done", 1: "refused, for the reason on standard error", 2: "etcd can't be asked"},
    "cleanup": {
        0: "nothing of overlayd is left",
        1: "something is left, and named",
        2: "the kernel is clean, but the lease was not released",
    },
    "lab": {0: "done", 1: "failed, or a check failed", 2: "the lab can't be as the options say"},
    "bench": {
        0: "every ratio is as required",
        1: "a ratio is not, or the bench failed",
        3: "void: the baseline is too slow",
    },
    "bundle": {0: "the archive is written", 1: "the archive is not written"},
    "completion": {0: "done"},
}
"""The meaning of each verb's statuses; any verb may also end with 2, 130 or 141, as `main` says."""


INTERRUPTED, BROKEN_PIPE = 128 + 2, 128 + 13
"""Exit status of a program that SIGINT or SIGPIPE has ended, as shells tell it (signal(7))."""


class CommandError(Exception):
    """The end of a command: the sentence goes to standard error, `status` becomes the exit status."""

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


def build_parser(only: str | None = None) -> argparse.ArgumentParser:
    """Build the whole command line; with `only`, the options of that verb alone, without importing the others."""
    parser = argparse.ArgumentParser(prog="overlayd", description="An overlay network daemon.")
    parser.add_argument("--version", action="version", version=f"overlayd {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for verb, summary in VERBS.items():
        statuses = " ".join(f"{status}: {meaning}." for status, meaning in EXIT_STATUS[verb].items())
        sub = verbs.add_parser(verb, help=summary, description=summary, epilog=f"Exit status {statuses}")
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
