"""TAB completes what there is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from overlayd.cli import VERBS, main


def offered(line: str, tmp_path: Path) -> set[str]:
    answer = tmp_path / "answer"
    environment = {
        **os.environ,
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(answer),
        "_ARGCOMPLETE_IFS": "\n",
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
    }
    subprocess.run([sys.executable, "-m", "overlayd"], env=environment, check=True)
    return {word.strip() for word in answer.read_text().split("\n")}


def test_verbs_and_options_are_offered(tmp_path: Path) -> None:
    assert set(VERBS) <= offered("overlayd ", tmp_path)
    assert offered("overlayd lea", tmp_path) == {"leases"}
    assert {"list", "reserve", "release"} <= offered("overlayd leases ", tmp_path)
    assert offered("overlayd run --lease", tmp_path) == {"--lease-ttl"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_a_script_that_it_can_read(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "overlayd" in script
    if shutil.which(shell) is not None:
        subprocess.run([shell, "-n"], input=script, text=True, check=True)
