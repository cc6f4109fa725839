"""Builds the image's stages as directories: debootstrap stands for the base image, chroot for the builder.

A builder's network is this machine's: apt and pip go out by the settings that the machine itself uses, which are
laid into each directory for the time of the build and are not part of the result.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from imagecheck.dockerfile import BuildStage, Copy, DockerfileError, RunInstruction, Workdir

OUTWARDS = (
    *("/etc/resolv.conf", "/etc/hosts", "/etc/ssl/certs/ca-certificates.crt", "/etc/pip.conf"),
    *("/root/.pip/pip.conf", "/root/.config/pip/pip.conf"),
)
"""Files by which this machine reaches its package registries, where it has them."""
LIMIT = 900.0
"""Seconds that one step may take."""


def build(stages: list[BuildStage], context: Path, work: Path) -> Path:
    """Carry out all stages below `work`; the root directory of the last.  Raises CalledProcessError."""
    roots: dict[str, Path] = {}
    root = work
    for number, stage in enumerate(stages):
        root = work / f"stage{number}"
        print(f"== {stage.name or 'final'}: from {stage.base}", flush=True)
        _copy_tree(_base(stage.base, work), root)
        _carry_out(stage, root, context, roots)
        roots[stage.name] = roots[str(number)] = root
    return root


def _base(image: str, work: Path) -> Path:
    """A plain Debian of the image's release, made once."""
    found = re.fullmatch(r"debian:([a-z]+)-slim", image)
    if found is None:
        raise DockerfileError(f"FROM {image}: only debian:<release>-slim can be had here")
    root = work / "base" / found[1]
    if not root.exists():
        root.parent.mkdir(exist_ok=True)
        _run("debootstrap", "--variant=minbase", found[1], str(root))
    return root


def _carry_out(stage: BuildStage, root: Path, context: Path, roots: dict[str, Path]) -> None:
    directory = "/"
    for step in stage.steps:
        match step:
            case Workdir(path):
                directory = path
                (root / path.lstrip("/")).mkdir(parents=True, exist_ok=True)
            case Copy(sources, destination, origin):
                target = root / os.path.join(directory, destination).lstrip("/")
                for source in sources:
                    if origin:
                        _copy_tree(roots[origin] / source.lstrip("/"), target)
                    else:
                        _copy_context(context, source, target)
            case RunInstruction(command):
                print(f"-- RUN {command}", flush=True)
                with _outwards(root):
                    run_in(root, ["sh", "-ec", f"cd {directory}; {command}"], stage.environment)


def _copy_context(context: Path, source: str, target: Path) -> None:
    """What the ignore file leaves of the context.  Only `COPY . …` is ever asked for."""
    if source != ".":
        raise DockerfileError(f"COPY {source}: only the whole context is copied here")
    for file in ignored_context(context):
        copy = target / file
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(context / file, copy)


def ignored_context(context: Path) -> Iterator[Path]:
    """The context's files, as .dockerignore leaves them: all are left out but the named ones, and of these the
    patterns with ** at their head."""
    patterns = [line for line in (context / ".dockerignore").read_text().split("\n") if line[:1] not in ("", "#")]
    assert patterns[0] == "*", "the ignore file begins by leaving out everything"
    kept = [pattern[1:] for pattern in patterns if pattern.startswith("!")]
    dropped = [pattern.removeprefix("**/") for pattern in patterns if pattern.startswith("**/")]
    for name in kept:
        top = context / name
        for file in [top] if top.is_file() else sorted(top.rglob("*")):
            relative = file.relative_to(context)
            if file.is_file() and not any(Path(part).match(d) for part in relative.parts for d in dropped):
                yield relative


@contextmanager
def _outwards(root: Path) -> Iterator[None]:
    """This machine's way to its registries, in `root` while the context lasts."""
    before: dict[str, bytes | None] = {}
    for name in OUTWARDS:
        own, theirs = Path(name), root / name.lstrip("/")
        if own.exists():
            before[name] = theirs.read_bytes() if theirs.exists() else None
            theirs.parent.mkdir(parents=True, exist_ok=True)
            theirs.write_bytes(own.read_bytes())
    try:
        yield
    finally:
        for name, content in before.items():
            theirs = root / name.lstrip("/")
            if theirs.read_bytes() != Path(name).read_bytes():
                continue  # the step has put its own there
            if content is None:
                theirs.unlink()
            else:
                theirs.write_bytes(content)


def run_in(root: Path, command: list[str], environment: dict[str, str]) -> None:
    """Run a command in the directory, with /proc and /dev of its own mount namespace."""
    script = f'mount -t proc proc "{root}/proc" && mount --rbind /dev "{root}/dev" && exec chroot "{root}" "$@"'
    plain = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
    registries = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    subprocess.run(
        ["unshare", "--mount", "--", "sh", "-c", script, "sh", *command],
        env={**plain, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8", **registries, **environment},
        check=True,
        timeout=LIMIT,
    )


def _copy_tree(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    _run("cp", "--archive", "--no-target-directory", str(source), str(target))


def _run(*command: str) -> None:
    subprocess.run(command, check=True, timeout=LIMIT, stdout=subprocess.DEVNULL)
