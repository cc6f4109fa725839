"""The Dockerfile: that it can be read, and that what it makes is what the manifests start."""

from __future__ import annotations

from pathlib import Path

import pytest

from imagecheck.build import ignored_context
from imagecheck.dockerfile import Copy, DockerfileError, RunInstruction, Workdir, parse_dockerfile
from imagecheck.trial import Rights
from overlayd import __version__

TOP = Path(__file__).parents[2]


def test_a_dockerfile_is_read_as_docker_reads_it() -> None:
    stages = parse_dockerfile(
        "# a comment\nFROM debian:bookworm-slim AS build\nRUN one \\\n  && two \\\n# in between\n  && three\n"
        'WORKDIR /src\nCOPY . .\nFROM other\nCOPY --from=build /a /b\nENV A=1 B="2 3"\nLABEL x.y="z"\n'
        'ENTRYPOINT ["/a"]\nCMD ["run"]\n'
    )
    build, final = stages
    assert (build.name, build.base) == ("build", "debian:bookworm-slim")
    assert build.steps == [RunInstruction("one && two && three"), Workdir("/src"), Copy((".",), ".")]
    assert final.steps == [Copy(("/a",), "/b", "build")]
    assert (final.environment, final.labels) == ({"A": "1", "B": "2 3"}, {"x.y": "z"})
    assert (final.entrypoint, final.command) == (("/a",), ("run",))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "RUN true",
        "FROM a\nVOLUME /x",
        "FROM a b",
        "FROM a\nCMD run",
        "FROM a\nENV x",
        "FROM a\nCOPY --chown=1 a b",
    ],
)
def test_what_it_can_t_do_is_an_error(text: str) -> None:
    with pytest.raises(DockerfileError):
        parse_dockerfile(text)


def test_the_final_stage_has_the_daemon_and_nothing_to_build_with() -> None:
    build, final = parse_dockerfile((TOP / "deploy" / "Dockerfile").read_text())
    installs = " ".join(step.command for step in final.steps if isinstance(step, RunInstruction))
    for wanted in ("iproute2", "nftables", "iptables", "python3"):
        assert wanted in installs
    for unwanted in ("gcc", "-dev", "pip", "[lab]"):
        assert unwanted not in installs
    assert "[lab]" not in " ".join(step.command for step in build.steps if isinstance(step, RunInstruction))
    assert final.labels["org.opencontainers.image.version"] == __version__
    assert final.command == ("run",)


def test_the_builder_gets_what_it_needs_and_no_more() -> None:
    files = {str(path) for path in ignored_context(TOP)}
    assert {"pyproject.toml", "README.md", "LICENSE", "overlayd/node/daemon.py"} <= files
    assert "backends/overlayd_backends/vxlan.py" in files
    assert not [file for file in files if file.startswith(("tests/", ".git/", ".venv/")) or "__pycache__" in file]
    assert not [file for file in files if file.endswith(".so")]


def test_the_trial_reads_the_rights_from_the_manifest() -> None:
    rights = Rights.of(TOP / "deploy" / "kubernetes" / "base" / "daemonset.yaml")
    assert rights.capabilities == ("NET_ADMIN",)
    assert rights.host_paths["/var/lib/overlayd"] is True
    assert rights.host_paths["/etc/machine-id"] is False
