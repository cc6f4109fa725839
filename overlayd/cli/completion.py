"""`overlayd completion`: print the script by which a shell completes verbs and options.

The shell then asks the command itself, by the protocol of argcomplete, so completion is never out of date.
"""

from __future__ import annotations

import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "shell",
        choices=("bash", "zsh", "fish"),
        help='the shell; in bash, load the script with: eval "$(overlayd completion bash)"',
    )


def run(args: argparse.Namespace) -> int:
    import argcomplete

    print(argcomplete.shellcode(["overlayd"], shell=args.shell))
    return 0
