"""The program nft: finding it, running it, and understanding what it refuses."""

from __future__ import annotations

import errno
import os
import re
import subprocess
from dataclasses import dataclass

from overlayd.core.kernel.driver import Failure
from overlayd.host.program import find_program, run_program

PACKAGE = "nftables"
"""Its name in all big distributions."""
_REFUSAL = re.compile(r"^/dev/stdin:(\d+):\d+-\d+: Error: (?:Could not process rule: )?(.*)$", re.MULTILINE)
_ERRNO = {os.strerror(number): number for number in errno.errorcode}


@dataclass(frozen=True, slots=True)
class Ran:
    """The result of a run: `refusals` are nft's words by the line of the script, `trouble` those about no line.
    Both are empty where all was done."""

    out: str = ""
    refusals: tuple[tuple[int, str], ...] = ()
    trouble: str = ""


def find_nft() -> str | None:
    """Find the path of the program."""
    return find_program("nft")


async def run_nft(netns: str | None, *arguments: str, script: str = "") -> Ran:
    """Run it in this network namespace, or in another one, where `script` is its standard input.

    Raises OSError where it is not installed, can't be run or does not end.
    """
    program = find_nft()
    if program is None:
        raise FileNotFoundError(errno.ENOENT, f"nft is not installed: it is in the package {PACKAGE}")
    return _understand(await run_program(netns, program, *arguments, script=script))


def _understand(done: subprocess.CompletedProcess[bytes]) -> Ran:
    out, said = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
    if done.returncode == 0:
        return Ran(out)
    refusals = tuple((int(line), words) for line, words in _REFUSAL.findall(said))
    if refusals:
        return Ran(out, refusals)
    first = next((line.strip() for line in said.splitlines() if line.strip()), f"exit status {done.returncode}")
    return Ran(out, trouble=first)


def failure(words: str) -> Failure:
    """Make an outcome of nft's words."""
    number = next((number for meaning, number in _ERRNO.items() if words.startswith(meaning)), 0)
    hint = ": overlayd needs the capability CAP_NET_ADMIN" if number == errno.EPERM else ""
    return Failure(number, f"nft says: {words}{hint}")
