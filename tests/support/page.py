"""The package that docs/write-a-backend.md builds, exactly as it stands there, and installed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs/write-a-backend.md"


@dataclass(frozen=True)
class Package:
    """`source` has the files of the page, `installed` what `pip install` made of them."""

    source: Path
    installed: Path

    @property
    def pythonpath(self) -> str:
        return os.pathsep.join(filter(None, (str(self.installed), os.environ.get("PYTHONPATH"))))


def files_of(page: str) -> dict[str, str]:
    """The code blocks that say which file they are."""
    return dict(re.findall(r"^```\w+ (\S+)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL))


def install_page(directory: Path) -> Package:
    """Without the network: what the package depends on is there."""
    package = Package(directory / "source", directory / "installed")
    for name, text in files_of(PAGE.read_text()).items():
        path = package.source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    options = ("--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--target", str(package.installed))
    command = [sys.executable, "-m", "pip", "install", *options, "."]
    done = subprocess.run(command, cwd=package.source, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return package
