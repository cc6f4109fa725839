"""The C datapath without Python, under the sanitizers: damaged packets and tables, and threads that meet.

Each program is compiled from the extension's own sources, all but the binding.  A finding names its seed.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from overlayd_backends.udp.engine import COUNTERS

HERE = Path(__file__).parent
SOURCES = HERE.parents[1] / "backends/overlayd_backends/udp/c"
TIMEOUT = 120
"""Seconds for a program that takes one or two."""


def build(tmp_path: Path, sanitizers: str, *sources: str) -> Path:
    """The program made of these files of this folder and the datapath.  Skips where no compiler can do that."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler: apt-get install gcc")
    flags = ["-std=gnu11", "-D_GNU_SOURCE", "-O1", "-g", f"-fsanitize={sanitizers}", "-fno-sanitize-recover=all"]
    empty, program = tmp_path / "empty.c", tmp_path / "program"
    empty.write_text("int main(void) { return 0; }\n")
    if subprocess.run([compiler, *flags, empty, "-o", program], capture_output=True, check=False).returncode:
        pytest.skip(f"needs a C compiler with -fsanitize={sanitizers}: apt-get install gcc")
    datapath = [path for path in sorted(SOURCES.glob("*.c")) if not path.name.startswith("binding")]
    files = [*(HERE / name for name in sources), *datapath]
    strict = ["-Wall", "-Wextra", "-Werror", f"-I{SOURCES}"]
    subprocess.run([compiler, *flags, *strict, *files, "-pthread", "-o", program], check=True, timeout=TIMEOUT)
    return program


def run(program: Path, *arguments: int) -> str:
    finished = subprocess.run(
        [program, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=TIMEOUT
    )
    assert finished.returncode == 0, f"{finished.stdout[-200:]}\n{finished.stderr[:4000]}"
    return finished.stdout


def test_damaged_packets_and_tables_break_nothing(tmp_path: Path) -> None:
    program = build(tmp_path, "address,undefined", "mutate.c", "exercise.c")
    reached = {name: int(times) for name, times in re.findall(r"(\w+) (\d+)\n", run(program, 1, 60))}
    assert [name for name in COUNTERS if reached[name] == 0] == [], "what the seeds never reach is not tested"


@pytest.mark.long
def test_many_more_seeds_break_nothing(tmp_path: Path) -> None:
    program = build(tmp_path, "address,undefined", "mutate.c", "exercise.c")
    for first in range(1000, 4000, 100):
        run(program, first, 100)


@pytest.mark.parametrize("sanitizers", ["thread", "address,undefined"])
def test_tables_are_replaced_under_a_flow_that_loses_nothing(tmp_path: Path, sanitizers: str) -> None:
    program = build(tmp_path, sanitizers, "race.c")
    tables = re.findall(r"^tables (\d+)", run(program, 200, 10_000), re.MULTILINE)
    assert len(tables) == 2
    assert all(int(taken_up) > 25 for taken_up in tables)


def test_the_entry_of_libfuzzer_compiles_and_reads_a_script(tmp_path: Path) -> None:
    caller = tmp_path / "caller.c"
    caller.write_text(
        "#include <stddef.h>\n#include <stdint.h>\nint LLVMFuzzerTestOneInput(const uint8_t *, size_t);\n"
        'int main(void) { return LLVMFuzzerTestOneInput((const uint8_t *)"\\x0f\\x01\\x02\\0\\x04" "abcd", 9); }\n'
    )
    run(build(tmp_path, "address,undefined", "libfuzzer.c", "exercise.c", str(caller)))
