"""The options for TLS and passwords, from the command line to the store, and what is said of bad ones."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import pytest

from overlayd.cli import CommandError, main
from overlayd.cli.options import add_store_options, open_store
from support.authority import Authority

FLAGS = {
    "--etcd-cafile": Path("/etc/ca.pem"),
    "--etcd-certfile": Path("/etc/cert.pem"),
    "--etcd-keyfile": Path("/etc/key.pem"),
    "--etcd-password-file": Path("/etc/password"),
    "--etcd-username": "overlayd",
}


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("OVERLAYD_")]:
        monkeypatch.delenv(name)


def parsed(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_store_options(parser)
    return parser.parse_args(arguments)


@pytest.mark.parametrize(("flag", "value"), FLAGS.items())
def test_each_option_comes_from_the_command_line_or_the_environment(
    flag: str, value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = flag[2:].replace("-", "_")
    assert getattr(parsed(), name) is None
    assert getattr(parsed(flag, str(value)), name) == value
    monkeypatch.setenv(f"OVERLAYD_{name.upper()}", str(value))
    assert getattr(parsed(), name) == value


@pytest.mark.parametrize(
    ("flag", "value", "said"),
    [
        ("--etcd-cafile", "ca.pem", "'ca.pem' is relative"),
        ("--etcd-username", "", "'' is not a user name"),
        ("--etcd-username", "a\nb", "is not a user name"),
        ("--etcd-username", " a", "is not a user name"),
    ],
)
def test_a_wrong_value_is_refused(flag: str, value: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed(flag, value)
    assert said in capsys.readouterr().err


async def test_options_that_are_good_open_a_store(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue("node1")
    password = tmp_path / "password"
    keep_password(password)
    arguments = [
        *("--etcd-endpoints", "https://127.0.0.1:1,https://etcd-2.example:2379"),
        *("--etcd-cafile", str(authority.ca), "--etcd-certfile", str(pair.cert), "--etcd-keyfile", str(pair.key)),
        *("--etcd-username", "overlayd", "--etcd-password-file", str(password)),
    ]
    async with open_store(parsed(*arguments)):
        pass


def keep_password(path: Path) -> None:
    path.write_text("secret\n")
    path.chmod(0o600)


async def test_a_command_error_says_what_does_not_fit() -> None:
    for arguments, said in (
        (["--etcd-cafile", "/nowhere/ca.pem"], "is spoken to without TLS: write https://"),
        (["--etcd-username", "overlayd"], "has no password: add --etcd-password-file"),
        (["--etcd-endpoints", "https://a:1,http://b:1"], "mixes TLS"),
        (["--etcd-endpoints", "https://a:1", "--etcd-cafile", "/nowhere/ca.pem"], "can't be read: No such file"),
    ):
        with pytest.raises(CommandError) as refused:
            await opened(parsed(*arguments))
        assert said in str(refused.value)
        assert refused.value.status == 2


async def opened(args: argparse.Namespace) -> None:
    async with open_store(args):
        pass


def test_every_verb_prints_it_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "show", "--etcd-username", "overlayd"]) == 2
    assert capsys.readouterr().err == (
        "overlayd config: --etcd-username overlayd has no password: add --etcd-password-file\n"
    )
