"""How etcd and gRPC say no, turned into our errors and into sentences for an operator.  Nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import grpc

from overlayd.core.store import Compacted, StoreError, StoreRefused

_REFUSALS = frozenset(
    {
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
    }
)
"""Asking the same again gets the same answer."""

_ITS_CLOCK_RAN_OUT = "context deadline exceeded"
"""etcd is told the deadline too, and sometimes says this (code UNKNOWN) before our own clock runs out."""

_NO_CONNECTION: Mapping[str, str] = MappingProxyType(
    {
        "connection refused": "refuses the connection: nothing listens there, or a firewall answers for it",
        "no route to host": "cannot be reached: no route to host",
        "network is unreachable": "cannot be reached: this host has no route to that network",
        "domain name not found": "cannot be reached: there is no such host name",
        "ping timeout": "stopped answering",
        "socket closed": "closed the connection",
        "connection reset": "closed the connection",
        "http1": "does not speak etcd's protocol on that port: it answers in HTTP/1",
    }
)
"""What the text of UNAVAILABLE contains when gRPC and not etcd says it, and what it means."""


def no_answer(where: str, seconds: float) -> StoreError:
    return StoreError(f"etcd at {where} did not answer within {seconds:g} s")


def translate(where: str, error: Any, seconds: float) -> StoreError:
    """The StoreError for a gRPC error of a call to `where`, which was given `seconds` to answer."""
    code, details = error.code(), error.details() or "it gave no reason"
    if code is grpc.StatusCode.DEADLINE_EXCEEDED or details == _ITS_CLOCK_RAN_OUT:
        return no_answer(where, seconds)
    said = details.removeprefix("etcdserver: ")
    if code is grpc.StatusCode.OUT_OF_RANGE and "compacted" in said:
        return Compacted(f"etcd at {where} has compacted the revision that was asked for")
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return StoreRefused(f"what answers at {where} is not an etcd with API v3: {said}")
    if code in _REFUSALS:
        return StoreRefused(f"etcd at {where} refused: {said}")
    if code is grpc.StatusCode.UNAVAILABLE and said == details:
        for sign, meaning in _NO_CONNECTION.items():
            if sign in details.lower():
                return StoreError(f"etcd at {where} {meaning}")
        return StoreError(f"etcd at {where} cannot be reached: {said}")
    return StoreError(f"etcd at {where} failed: {said} ({code.name})")
