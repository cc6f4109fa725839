"""`overlayd completion`: what a shell must be told so that TAB completes verbs and options.

The shell then asks the command itself, by argcomplete's protocol, so what it offers is always what is there.
"""

from __future__ import annotations

import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "shell",
        choices=("bash", "zsh", "fish"),
        help='for which shell; in bash for one: eval "$(overlayd completion bash)"',
    )


def run(args: argparse.Namespace) -> int:
    import argcomplete

    print(argcomplete.shellcode(["overlayd"], shell=args.shell))
    return 0
