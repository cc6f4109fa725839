"""The page that builds a backend keeps its word: its package passes its own checks, and carries a cluster."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence

import pytest

from overlayd.lab.client import RunningLab, find_lab
from overlayd.lab.control import Ask
from support.lab import OVERLAYD, require_namespaces
from support.netns import require_root
from support.page import PAGE, Package, files_of, install_page
from support.udp_lab import until

CHECKOUT = PAGE.parents[1]
LAB = f"tests-page-{os.getpid()}"
LOOK = "ip -o link; ip -o -4 address; ip -N route show table all"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return install_page(tmp_path_factory.mktemp("page"))


def run(package: Package, *command: str, patience: float = 240.0) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": package.pythonpath}
    return subprocess.run(
        command, cwd=package.source, env=environment, capture_output=True, text=True, check=False, timeout=patience
    )


def succeed(package: Package, *command: str) -> str:
    done = run(package, *command)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_page_has_a_whole_package() -> None:
    files = files_of(PAGE.read_text())
    assert {"pyproject.toml", "overlayd_tagged/driver.py", "tests/test_tagged.py"} <= files.keys()


def test_the_package_passes_the_checks_that_overlayd_ships(package: Package) -> None:
    require_root()
    commands = re.search(r"sh -c '(ip link .*) python -m pytest tests'", PAGE.read_text())
    assert commands is not None
    script = f"{commands[1]} {sys.executable} -m pytest -q -p no:cacheprovider tests"
    said = succeed(package, "unshare", "--net", "sh", "-ec", script)
    assert re.search(r"^2\d passed", said, re.MULTILINE), said


def test_the_package_is_strictly_typed(package: Package) -> None:
    options = ("--strict", "--explicit-package-bases", "--follow-imports", "silent", "--ignore-missing-imports")
    environment = {**os.environ, "MYPYPATH": os.pathsep.join(map(str, (CHECKOUT, CHECKOUT / "backends", ".")))}
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, "--cache-dir", os.devnull, "overlayd_tagged"],
        cwd=package.source,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout


@pytest.fixture(scope="module")
def lab(package: Package) -> Iterator[RunningLab]:
    require_namespaces()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", package.pythonpath)
        made = run(package, *OVERLAYD, "lab", "up", "--backend", "tagged", "--nodes", "2", "--name", LAB)
        try:
            assert made.returncode == 0, made.stdout + made.stderr
            yield find_lab(LAB)
        finally:
            run(package, *OVERLAYD, "lab", "down", "--name", LAB)


def on(package: Package, place: str, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return run(package, *OVERLAYD, "lab", "exec", "--name", LAB, place, "--", *command)


def test_every_check_of_the_suite_passes_in_its_lab(package: Package, lab: RunningLab) -> None:
    said = succeed(package, *OVERLAYD, "lab", "test", "--name", LAB)
    assert "pod-pod-tcp" in said


def test_status_shows_its_packet_path(package: Package, lab: RunningLab) -> None:
    done = on(package, "node1", [*OVERLAYD, "status"])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "datapath python (the tagged backend has no other)" in done.stdout


def test_its_device_is_taken_back_after_a_restart_and_goes_with_cleanup(package: Package, lab: RunningLab) -> None:
    def shell(script: str) -> str:
        done = on(package, "node1", ["sh", "-ec", script])
        assert done.returncode == 0, done.stderr
        return done.stdout

    index = "cat /sys/class/net/ovl.tagged/ifindex"
    before = shell(index)
    lab.ask(Ask.STOP, "node1")
    assert shell(index) == before, "stopping takes nothing away"
    lab.ask(Ask.START, "node1")
    until(lambda: on(package, "node1", [*OVERLAYD, "status"]).returncode == 0)
    assert shell(index) == before, "the next life did not know its own device"
    succeed(package, *OVERLAYD, "lab", "test", "--name", LAB, "pod-pod-tcp")

    lab.ask(Ask.STOP, "node1")
    assert "ovl.tagged.json" in shell('ls "$OVERLAYD_RUN_DIR"')
    assert "ovl.tagged" in shell(LOOK)
    said = shell(f"{sys.executable} -m overlayd cleanup --iface eth0")
    assert "removed link ovl.tagged" in said
    assert "ovl.tagged" not in shell(LOOK)
    assert "ovl.tagged.json" not in shell('ls "$OVERLAYD_RUN_DIR"')
    lab.ask(Ask.START, "node1")
    until(lambda: on(package, "node1", [*OVERLAYD, "status"]).returncode == 0)
