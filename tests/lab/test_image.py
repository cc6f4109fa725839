"""The image, built as the Dockerfile says and run as the DaemonSet does; needs minutes, Debian and PyPI."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from imagecheck.build import ImageStore

TOP = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _builder() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: mounts and network namespaces")
    for program in ("buildah", "debootstrap"):
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}")


def test_build_context_holds_what_pip_needs_and_no_more(tmp_path: Path) -> None:
    dockerfile = tmp_path / "Dockerfile"
    dockerfile.write_text("FROM scratch\nCOPY . /\n")
    images = ImageStore(tmp_path)
    images.build(dockerfile, TOP, "context")
    root = images.open("context")
    files = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    assert {
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "deploy/build_backend.py",
        "overlayd/node/daemon.py",
    } <= files
    assert "backends/overlayd_backends/vxlan.py" in files
    assert not [file for file in files if file.startswith(("tests/", ".git/", ".venv/")) or "__pycache__" in file]
    assert not [file for file in files if file.endswith(".so")]


@pytest.mark.long
def test_image_is_clean_and_carries_packets_with_the_manifests_rights() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "imagecheck"],
        env={**os.environ, "PYTHONPATH": str(TOP / "deploy")},
        capture_output=True,
        text=True,
        check=False,
        timeout=1800,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    for backend in ("vxlan", "udp"):
        assert f"== {backend}: pods on two nodes reach each other" in done.stdout
