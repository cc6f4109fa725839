"""The programs that send and count, over the loopback."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Generator
from pathlib import Path

import pytest

from overlayd.bench import tools
from overlayd.bench.failure import BenchError
from overlayd.bench.tools import COMPILER, Tools

PORT = "29000"


@pytest.fixture(scope="module")
def programs() -> Generator[Tools]:
    if shutil.which(COMPILER) is None:
        pytest.skip(f"needs {COMPILER}")
    with tools.compiled() as made:
        yield made


def beside(*command: str) -> subprocess.Popen[str]:
    """A program that has said that it is ready."""
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def output(*command: str) -> list[str]:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.split()


@pytest.mark.parametrize("size", ["64", "1400"])
def test_datagrams_are_sent_evenly_and_counted(programs: Tools, size: str) -> None:
    with beside(programs.packets, "receive", PORT) as receiver:
        sent, took = output(programs.packets, "send", "127.0.0.1", PORT, size, "2000", "0.4")
        received = receiver.communicate(timeout=30)[0]
    assert 0 < int(sent) <= 2000 * float(took) + 1
    assert int(received) == int(sent)


def test_without_a_rate_it_sends_as_fast_as_it_can(programs: Tools) -> None:
    with beside(programs.packets, "receive", PORT) as receiver:
        sent, took = output(programs.packets, "send", "127.0.0.1", PORT, "64", "0", "0.1")
        received = receiver.communicate(timeout=30)[0]
    assert int(sent) > 2000 * float(took)
    assert 0 < int(received) <= int(sent)


def test_round_trips_are_counted_with_their_percentiles(programs: Tools) -> None:
    with beside(programs.pingpong, "answer", PORT) as answerer:
        count, p50, p99 = map(int, output(programs.pingpong, "ask", "127.0.0.1", PORT, "0.3"))
        answerer.communicate(timeout=30)
    assert count > 0
    assert 0 < p50 <= p99
    assert answerer.returncode == 0


def test_where_nobody_answers_it_says_so(programs: Tools) -> None:
    command = [programs.pingpong, "ask", "127.0.0.1", PORT, "0.1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, done.stderr) == (1, "pingpong: no answer came\n")


def test_our_programs_are_gone_afterwards(programs: Tools) -> None:
    with tools.compiled() as made:
        directory = Path(made.plain).parent
        assert directory.exists()
    assert not directory.exists()


def test_the_compilers_complaint_is_passed_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "plain.c").write_text("int main(void) { return nothing; }\n")
    monkeypatch.setattr(tools, "SOURCES", tmp_path)
    with pytest.raises(BenchError, match=r"plain\.c does not compile:\n(.|\n)*nothing"), tools.compiled():
        pass
