"""Builds images with buildah, in storage of its own, with no image registry.

debootstrap makes the base image, a plain Debian, under the name that the Dockerfile gives.  The steps of a build
use this machine's network, and pip in them the settings by which this machine reaches its package index.
"""

from __future__ import annotations

import configparser
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

LIMIT = 900.0
"""Seconds that one command may take."""
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
PIP_CONFIGS = ("/etc/pip.conf", "~/.pip/pip.conf", "~/.config/pip/pip.conf")
"""In pip's order, the later ones prevail (pip documentation, "Configuration")."""
PIP_MOUNT = "/root/.config/pip"


class ImageError(Exception):
    """An image that can't be built here; the text says why."""


class ImageStore:
    """Images and containers in a scratch directory; whoever removes the directory removes them all."""

    def __init__(self, work: Path) -> None:
        self._work = work
        self._pip = _write_pip_settings(work / "pip")

    def build(self, dockerfile: Path, context: Path, name: str) -> None:
        """Build an image as the Dockerfile says.  Raises ImageError."""
        for base in dict.fromkeys(re.findall(r"(?m)^FROM (\S+)", dockerfile.read_text())):
            if base != "scratch":
                self._make_base(base)
        print(f"== {name}: building {dockerfile}", flush=True)
        self._buildah(
            "build",
            "--isolation=chroot",
            "--pull-never",
            "--network=host",
            f"--volume={self._pip}:{PIP_MOUNT}:ro",
            f"--ignorefile={context / '.dockerignore'}",
            f"--file={dockerfile}",
            f"--tag={name}",
            str(context),
        )

    def open(self, name: str) -> Path:
        """Make a container of an image; its root directory, in which everything may be changed."""
        return Path(self._ask("mount", self._ask("from", "--pull-never", name)))

    def config(self, name: str) -> dict[str, Any]:
        """Return what an image tells a container engine (OCI image specification): Env, Labels, Cmd and more."""
        found: dict[str, Any] = json.loads(self._ask("inspect", "--type=image", name))["OCIv1"]["config"]
        return found

    def _make_base(self, image: str) -> None:
        found = re.fullmatch(r"debian:([a-z]+)-slim", image)
        if found is None:
            raise ImageError(f"FROM {image}: only debian:<release>-slim can be made without a registry")
        name = f"docker.io/library/{image}"
        if name in self._ask("images", "--format={{.Name}}:{{.Tag}}").split():
            return
        print(f"== {image}: made by debootstrap", flush=True)
        container = self._ask("from", "scratch")
        _run("debootstrap", "--variant=minbase", found[1], self._ask("mount", container))
        self._buildah("commit", "--rm", container, name)

    def _buildah(self, *arguments: str) -> None:
        _run(*self._command(*arguments))

    def _ask(self, *arguments: str) -> str:
        done = subprocess.run(
            self._command(*arguments),
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT,
        )
        if done.returncode:
            raise ImageError(f"buildah {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout.strip()

    def _command(self, *arguments: str) -> list[str]:
        places = (f"--root={self._work / 'storage'}", f"--runroot={self._work / 'run'}")
        return ["buildah", *places, "--storage-driver=vfs", *arguments]  # plain directories: nothing stays mounted


def _write_pip_settings(directory: Path) -> Path:
    """Write this machine's settings of pip, those from the environment among them, for use in a build."""
    directory.mkdir()
    settings = configparser.RawConfigParser()
    settings.read([Path(name).expanduser() for name in PIP_CONFIGS])
    if not settings.has_section("global"):
        settings.add_section("global")
    for name, value in os.environ.items():
        if name.startswith("PIP_"):
            settings.set("global", name.removeprefix("PIP_").lower().replace("_", "-"), value)
    if CERTIFICATES.exists():
        shutil.copy(CERTIFICATES, directory / "certificates")
        settings.set("global", "cert", f"{PIP_MOUNT}/certificates")
    with (directory / "pip.conf").open("w") as file:
        settings.write(file)
    return directory


def _run(*command: str) -> None:
    done = subprocess.run(command, check=False, timeout=LIMIT)
    if done.returncode:
        raise ImageError(f"{' '.join(command)} ended with exit status {done.returncode}")


def run_in(root: Path, *command: str) -> str:
    """Run a command in a root directory, with /proc of its own mount namespace; its output."""
    script = f'mount -t proc proc "{root}/proc" && exec chroot "{root}" "$@"'
    return subprocess.run(
        ["unshare", "--mount", "--", "sh", "-c", script, "sh", *command],
        env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=LIMIT,
    ).stdout
