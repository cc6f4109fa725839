"""Reads a Dockerfile: as much of its language as ours uses, and an error for anything else.

Pure.  The reference is Docker's "Dockerfile reference".
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field


class DockerfileError(ValueError):
    """A line that can't be carried out here; the text says which."""


@dataclass(frozen=True)
class RunInstruction:
    command: str


@dataclass(frozen=True)
class Copy:
    """`stage` is the stage to copy from, "" for the build's context."""

    sources: tuple[str, ...]
    destination: str
    stage: str = ""


@dataclass(frozen=True)
class Workdir:
    path: str


Step = RunInstruction | Copy | Workdir


@dataclass
class BuildStage:
    """What to do on top of `base`; `entrypoint` and `command` are what a container runs."""

    name: str
    base: str
    steps: list[Step] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()


def parse_dockerfile(text: str) -> list[BuildStage]:
    """The stages in order.  Raises DockerfileError."""
    stages: list[BuildStage] = []
    for word, rest in _instructions(text):
        if word == "FROM":
            stages.append(_stage(rest))
            continue
        if not stages:
            raise DockerfileError(f"{word} stands before the first FROM")
        _extend(stages[-1], word, rest)
    if not stages:
        raise DockerfileError("there is no FROM")
    return stages


def _instructions(text: str) -> Iterator[tuple[str, str]]:
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    for whole in re.sub(r"\\\n", " ", "\n".join(lines)).splitlines():
        if whole.strip():
            word, _, rest = whole.strip().partition(" ")
            yield word.upper(), rest.strip()


def _stage(rest: str) -> BuildStage:
    found = re.fullmatch(r"(\S+)(?:\s+[Aa][Ss]\s+(\S+))?", rest)
    if found is None:
        raise DockerfileError(f"FROM {rest}: this is not `FROM image [AS name]`")
    return BuildStage(name=found[2] or "", base=found[1])


def _extend(stage: BuildStage, word: str, rest: str) -> None:
    match word:
        case "RUN":
            stage.steps.append(RunInstruction(re.sub(r"\s{2,}", " ", rest)))
        case "WORKDIR":
            stage.steps.append(Workdir(rest))
        case "COPY":
            stage.steps.append(_copy(rest))
        case "ENV":
            stage.environment |= _pairs(word, rest)
        case "LABEL":
            stage.labels |= _pairs(word, rest)
        case "ENTRYPOINT":
            stage.entrypoint = _words(word, rest)
        case "CMD":
            stage.command = _words(word, rest)
        case _:
            raise DockerfileError(f"{word} can't be carried out here")


def _copy(rest: str) -> Copy:
    words = shlex.split(rest)
    stage = ""
    if words and words[0].startswith("--from="):
        stage = words.pop(0).removeprefix("--from=")
    if len(words) < 2 or words[0].startswith("--"):
        raise DockerfileError(f"COPY {rest}: this is not `COPY [--from=stage] source… destination`")
    return Copy(tuple(words[:-1]), words[-1], stage)


def _pairs(word: str, rest: str) -> dict[str, str]:
    pairs = [part.partition("=") for part in shlex.split(rest)]
    if not all(equals for _, equals, _ in pairs):
        raise DockerfileError(f"{word} {rest}: this is not `name=value …`")
    return {name: value for name, _, value in pairs}


def _words(word: str, rest: str) -> tuple[str, ...]:
    try:
        words = json.loads(rest)
    except json.JSONDecodeError:
        words = None
    if not isinstance(words, list) or not all(isinstance(one, str) for one in words):
        raise DockerfileError(f'{word} {rest}: this is not a list such as ["run"]')
    return tuple(words)
