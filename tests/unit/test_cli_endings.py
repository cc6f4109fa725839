"""How commands end when their output goes nowhere, or somebody interrupts them: in words, never with a
traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "overlayd"]
CONFIG = '{"Network":"10.244.0.0/16","Note":"é"}'


def test_a_reader_that_goes_away_ends_a_command_quietly() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*COMMAND, "config", "check", "-"],
        input=CONFIG.encode(),
        stdout=writer,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_output_that_cannot_be_written_is_one_sentence() -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*COMMAND, "config", "check", "-"],
            input=CONFIG.encode(),
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert done.returncode == 1
    assert b"No space left on device" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_terminal_without_utf8_is_no_reason_to_fail() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [*COMMAND, "config", "check", "-"],
        input=CONFIG.encode(),
        env=environment,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0
    assert b"Traceback" not in done.stderr


def test_an_interrupt_ends_a_command_quietly() -> None:
    process = subprocess.Popen([*COMMAND, "config", "check", "-"], stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdin is not None
    try:
        wait_until_it_reads(process.pid)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, said) == (130, b"")


def wait_until_it_reads(pid: int) -> None:
    """Wait until the process sleeps in a read of its standard input."""
    for _ in range(6000):
        if Path(f"/proc/{pid}/syscall").read_text().startswith("0 0x0 "):
            return
        signal.sigtimedwait([], 0.01)
    raise AssertionError("it never came to read its input")
