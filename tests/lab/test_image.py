"""The image, built as the Dockerfile says and run as the DaemonSet does: it takes minutes, Debian and PyPI."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]


@pytest.mark.long
def test_the_image_is_clean_and_carries_packets_with_the_manifests_rights() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: mounts and network namespaces")
    if shutil.which("debootstrap") is None:
        pytest.skip("needs debootstrap")
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
