"""The first command of the README, on a fresh clone: as a user who may nothing, and, now and then, as root."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
NOBODY = 65534


def python_for(uid: int) -> str:
    """A Python that this user can start."""
    for candidate in (getattr(sys, "_base_executable", sys.executable), "/usr/bin/python3"):
        # by a shell, since setpriv itself may still have a root's way into a closed directory
        trial = [*become(uid), "sh", "-c", 'exec "$0" -c "import ensurepip"', candidate]
        done = subprocess.run(trial, capture_output=True, check=False)
        if done.returncode == 0:
            return candidate
    pytest.skip(f"needs a Python with venv that uid {uid} can start: apt-get install python3-venv")


def become(uid: int) -> list[str]:
    if uid == os.geteuid():
        return []
    return ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]


@pytest.mark.parametrize("uid", [NOBODY, pytest.param(0, marks=pytest.mark.long)])
def test_make_demo_on_a_fresh_clone(uid: int) -> None:
    if os.geteuid() not in (0, uid):
        pytest.skip(f"needs root: becomes uid {uid}")
    clone = Path(subprocess.check_output(["mktemp", "-d", "/tmp/overlayd-clone-XXXXXX"], text=True).strip())
    try:
        subprocess.run(["git", "clone", "--quiet", str(TOP), str(clone)], check=True)
        subprocess.run(["chown", "-R", f"{uid}:{uid}", str(clone)], check=True)
        environment = {
            **{name: value for name, value in os.environ.items() if name.startswith("PIP_")},
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/nonexistent",
        }
        done = subprocess.run(
            [*become(uid), "make", "demo", f"PYTHON={python_for(uid)}"],
            cwd=clone,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert re.search(r"all \d+ checks passed", done.stdout)
        assert "nothing of it is left" in done.stdout
    finally:
        shutil.rmtree(clone)
