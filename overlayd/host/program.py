"""Other people's programs: finding and running them, in this network namespace or in another one."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess

import trio

from overlayd.host.netlink.netns import NAMED

_PATH = "/usr/local/sbin:/usr/sbin:/sbin"
"""Where the programs that administer a system are; a daemon's PATH need not have these."""
TIMEOUT = 30.0
"""Seconds.  Nothing that is run here takes more than one."""


def find_program(name: str) -> str | None:
    """Find the path of the program."""
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:{_PATH}")


async def run_program(
    netns: str | None, program: str, *arguments: str, script: str = ""
) -> subprocess.CompletedProcess[bytes]:
    """Run it, with English words and `script` as its standard input, whatever its exit status.

    Raises OSError where it can't be run or does not end.
    """
    command = [program, *arguments]
    if netns is not None:
        command = ["nsenter", f"--net={NAMED / netns}", *command]
    with trio.move_on_after(TIMEOUT):
        return await trio.run_process(
            command,
            stdin=script.encode(),
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
    raise OSError(errno.ETIMEDOUT, f"{os.path.basename(program)} did not end within {TIMEOUT:g} s")
