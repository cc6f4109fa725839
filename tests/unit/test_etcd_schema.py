"""etcd's schema out of etcd3's own modules, and what is said of an etcd3 that looks otherwise."""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from overlayd.store.etcd.schema import load_schema, parse_schema, rpc

INSTALLED = Path(str(importlib.metadata.distribution("etcd3").locate_file("etcd3/etcdrpc")))


def test_messages_are_those_of_etcd() -> None:
    """The bytes are the ones that protoc's encoding rules give for these field numbers of etcd's rpc.proto."""
    put = rpc.PutRequest(key=b"k", value=b"v", lease=5)
    assert put.SerializeToString() == b"\x0a\x01k\x12\x01v\x18\x05"
    assert rpc.TxnRequest(success=[rpc.RequestOp(request_put=put)]).SerializeToString() == (
        b"\x12\x0a\x12\x08" + put.SerializeToString()
    )


def test_etcd3_itself_can_be_imported_once_the_schema_is_there() -> None:
    program = "import overlayd.store.etcd, etcd3; etcd3.client().close(); print(etcd3.etcdrpc.PutRequest.__name__)"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout == "PutRequest\n"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "No such file"),
        ("DESCRIPTOR = None", "no serialized_pb"),
        (r"serialized_pb=_b('\x0a\xff')", "parsing"),
        (r"serialized_pb=_b('\n\trpc.proto\x1a\x08no.proto')", "no.proto"),
    ],
)
def test_another_layout_of_etcd3_is_named_with_the_remedy(tmp_path: Path, text: str | None, reason: str) -> None:
    shutil.copytree(INSTALLED, tmp_path / "etcdrpc")
    broken = tmp_path / "etcdrpc" / "rpc_pb2.py"
    if text is None:
        broken.unlink()
    else:
        broken.write_text(text)
    with pytest.raises(ImportError) as refused:
        load_schema(tmp_path / "etcdrpc")
    assert str(broken) in str(refused.value)
    assert reason.lower() in str(refused.value).lower()
    assert str(refused.value).endswith("pip install 'etcd3==0.12.0'")


def test_the_schema_is_read_and_never_run() -> None:
    assert parse_schema("raise SystemExit\n  serialized_pb=_b('\\n\\x01\\'\\\\'),\n") == b"\n\x01'\\"
