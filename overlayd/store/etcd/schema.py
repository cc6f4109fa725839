"""etcd's messages and stubs, as `etcd3.etcdrpc`, on a protobuf that etcd3 itself cannot load.

The modules that protoc generated for etcd3 0.12.0 in 2019 do not run on protobuf 4 and later, and the last
protobuf that runs them is no longer safe.  What is still good in them is the schema itself, which each carries
as serialized bytes.  So they are read as text and never executed: the bytes go into a descriptor pool of our
own, protobuf makes the message classes from it, and the module that results takes the place of
`etcd3.etcdrpc` before etcd3 is imported.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_VERSION = "0.12.0"
_REMEDY = f"mend it with: pip install 'etcd3=={_VERSION}'"
_FILES = ("kv", "auth", "rpc")  # in the order of their imports
_SERIALIZED = re.compile(r"serialized_pb=_b\(('(?:[^'\\]|\\.)*')\)")


def parse_schema(source: str) -> bytes:
    """Parse the serialized FileDescriptorProto inside the text of a generated module.  Raises ValueError."""
    found = _SERIALIZED.search(source)
    if found is None:
        raise ValueError("no serialized_pb=_b('…') in it")
    schema: bytes = ast.literal_eval("b" + found[1])
    return schema


def load_schema(folder: Path) -> ModuleType:
    """Build what `etcd3.etcdrpc` should have been from the generated modules in its folder.

    Raises ImportError, naming the file, where they are not as in etcd3 0.12.0.
    """
    pool = descriptor_pool.DescriptorPool()
    module = ModuleType("etcd3.etcdrpc", __doc__)
    for name in _FILES:
        path = folder / f"{name}_pb2.py"
        try:
            serialized = parse_schema(path.read_text(encoding="utf-8"))
            file = descriptor_pb2.FileDescriptorProto.FromString(serialized)
            pool.Add(file)
            descriptor = pool.FindFileByName(file.name)
        except Exception as error:
            raise ImportError(
                f"{path}: {error}. overlayd reads etcd's schema out of etcd3 {_VERSION}; {_REMEDY}"
            ) from error
        for message, kind in descriptor.message_types_by_name.items():
            setattr(module, message, message_factory.GetMessageClass(kind))
        for service in file.service:
            setattr(module, f"{service.name}Stub", _stub(service, descriptor.services_by_name[service.name]))
    return module


def _stub(service: descriptor_pb2.ServiceDescriptorProto, descriptor: Any) -> type:
    """Return a stub class as protoc's gRPC plugin would have written it: one callable for each method."""

    def connect(self: Any, channel: Any) -> None:
        for method in service.method:
            asks = "stream" if method.client_streaming else "unary"
            answers = "stream" if method.server_streaming else "unary"
            types = descriptor.methods_by_name[method.name]
            make: Callable[..., Any] = getattr(channel, f"{asks}_{answers}")
            call = make(
                f"/{descriptor.full_name}/{method.name}",
                request_serializer=message_factory.GetMessageClass(types.input_type).SerializeToString,
                response_deserializer=message_factory.GetMessageClass(types.output_type).FromString,
            )
            setattr(self, method.name, call)

    return type(f"{service.name}Stub", (), {"__init__": connect})


def _install() -> ModuleType:
    spec = importlib.util.find_spec("etcd3")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(f"etcd3 is not installed; {_REMEDY}")
    return load_schema(Path(spec.submodule_search_locations[0]) / "etcdrpc")


rpc = _install()
sys.modules["etcd3.etcdrpc"] = rpc
