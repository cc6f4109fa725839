"""What is handed out: sources that hold the C datapath, and a package that is built with a compiler or without."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

HERE = Path(__file__).parents[2]
C_SOURCES = "backends/overlayd_backends/udp/c"
TIMEOUT = 300
"""Seconds to build a package."""

pytestmark = pytest.mark.long


def build(tmp_path: Path, command: str, compiler: str | None = None) -> Path:
    """What setuptools makes of a copy of this checkout; `compiler` takes the place of the machine's."""
    tree, made = tmp_path / "tree", tmp_path / "made"
    tree.mkdir()
    for name in ("pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(HERE / name, tree)
    (tree / "deploy").mkdir()
    shutil.copy(HERE / "deploy/build_backend.py", tree / "deploy")
    for name in ("overlayd", "backends"):
        shutil.copytree(HERE / name, tree / name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    environment = os.environ if compiler is None else {**os.environ, "CC": compiler}
    setup = [sys.executable, "-c", "from setuptools import setup; setup()", "-q", command, "-d", str(made)]
    subprocess.run(setup, cwd=tree, env=environment, check=True, timeout=TIMEOUT, capture_output=True)
    (package,) = made.iterdir()
    return package


def test_the_source_package_holds_every_file_of_the_c_datapath(tmp_path: Path) -> None:
    with tarfile.open(build(tmp_path, "sdist")) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    there = {f"{C_SOURCES}/{path.name}" for path in (HERE / C_SOURCES).iterdir() if path.suffix in {".c", ".h"}}
    assert there
    assert there - packed == set()


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler: apt-get install gcc")
def test_the_built_package_holds_an_extension_for_every_later_python(tmp_path: Path) -> None:
    package = build(tmp_path, "bdist_wheel")
    assert "-cp311-abi3-" in package.name
    with zipfile.ZipFile(package) as archive:
        assert "overlayd_backends/udp/_datapath.abi3.so" in archive.namelist()


def test_without_a_compiler_the_package_is_built_all_the_same(tmp_path: Path) -> None:
    with zipfile.ZipFile(build(tmp_path, "bdist_wheel", compiler="/bin/false")) as archive:
        packed = archive.namelist()
    assert "overlayd_backends/udp/python_loop.py" in packed
    assert [name for name in packed if name.endswith(".so")] == []
