"""The programs that a bench runs: our own, compiled for each run from c/, and iperf3.

They are programs, not an extension module: they need no Python, each runs in a pod or on a node of its own, and
without a bench no compiler is needed for them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from overlayd.bench.failure import BenchError
from overlayd.lab.blueprint import search_path

SOURCES = Path(__file__).parent / "c"
FLAGS = ("-O2", "-std=gnu11")
COMPILER = "cc"
NEEDED = {COMPILER: "gcc", "iperf3": "iperf3", "taskset": "util-linux"}
"""Programs, and the Debian package of each."""


@dataclass(frozen=True)
class Tools:
    """Paths of our own programs, each described at the head of its source."""

    plain: str
    flannel_like: str
    packets: str
    pingpong: str


def check_needed() -> None:
    """Check that all programs are installed.  Raises BenchError, which names the missing packages."""
    path = search_path(os.environ)
    missing = [program for program in NEEDED if shutil.which(program, path=path) is None]
    if missing:
        packages = " ".join(NEEDED[program] for program in missing)
        raise BenchError(f"needs {' and '.join(missing)}: `apt-get install {packages}` brings what is missing")


@contextmanager
def compiled() -> Generator[Tools]:
    """Compile our own programs, for the time of the block.  Raises BenchError with the compiler's messages."""
    with tempfile.TemporaryDirectory(prefix="overlayd-bench-") as directory:
        Path(directory).chmod(0o755)
        yield Tools(
            *(_compile(name, Path(directory)) for name in ("plain", "flannel_like", "packets", "pingpong"))
        )


def _compile(name: str, directory: Path) -> str:
    program = directory / name
    command = [COMPILER, *FLAGS, "-o", str(program), str(SOURCES / f"{name}.c")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"{name}.c does not compile:\n{done.stderr.rstrip()}")
    return str(program)


def iperf3_version() -> str:
    done = subprocess.run(["iperf3", "--version"], capture_output=True, text=True, check=False)
    return done.stdout.split("\n", 1)[0].split("(")[0].removeprefix("iperf").strip()
