"""Running labs for tests: each comes up when it is first asked for and goes with the test session, however that
ends, as the session holds its lifeline."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from contextlib import ExitStack

import pytest

from overlayd.lab.launcher import HeldLab, launched
from overlayd.lab.lifeline import Progress
from overlayd.lab.model import LabSpec

OVERLAYD = (sys.executable, "-m", "overlayd")
FORBIDDEN = 77
ATTEMPT = f"""
import sys
from overlayd.lab.namespaces import Forbidden, unshare_all
try:
    unshare_all()
except (Forbidden, OSError) as error:
    print(error)
    sys.exit({FORBIDDEN})
"""


class Labs:
    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._held: dict[LabSpec, HeldLab] = {}

    def get(self, spec: LabSpec) -> HeldLab:
        """The session's lab of this kind, whatever its name.  Who changes something in it puts it back."""
        kind = dataclasses.replace(spec, name="")
        if kind not in self._held:
            named = dataclasses.replace(spec, name=f"tests-{os.getpid()}-{len(self._held)}")
            self._held[kind] = self._stack.enter_context(launched(named, _unseen))
        return self._held[kind]


def require_namespaces() -> None:
    """Skip the test where this user may have no namespaces; any other failure to make them is an error."""
    done = subprocess.run([sys.executable, "-c", ATTEMPT], capture_output=True, text=True, check=False)
    if done.returncode == FORBIDDEN:
        pytest.skip(f"needs namespaces: {done.stdout.strip()}")
    assert done.returncode == 0, done.stderr


def run_inside(lab: HeldLab, where: str, *command: str) -> subprocess.CompletedProcess[str]:
    """A command on a node or in a pod; `overlayd` is the one of this checkout."""
    program = OVERLAYD if command[0] == "overlayd" else command[:1]
    enter = [*OVERLAYD, "lab", "exec", "--name", lab.snapshot.spec.name, where, "--", *program, *command[1:]]
    return subprocess.run(enter, capture_output=True, text=True, check=False, timeout=60)


def _unseen(_progress: Progress) -> None:
    pass
