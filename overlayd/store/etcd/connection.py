"""One gRPC channel to one or more members of etcd, and calls on it that trio can wait for and cancel."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import grpc
import trio

from overlayd.store.etcd.endpoints import Endpoint
from overlayd.store.etcd.failure import translate
from overlayd.store.etcd.schema import rpc

DEADLINE = 5.0
"""Seconds within which etcd must answer any call."""

LARGEST_MESSAGE = 256 << 20
"""Bytes that an answer may have.  gRPC's own limit is 4 MiB, which three records of somebody else's rubbish
can pass: etcd takes requests of up to 1.5 MiB (its --max-request-bytes)."""

OPTIONS: tuple[tuple[str, int], ...] = (
    # A member that is frozen or cut off is noticed in 7 s: etcd allows a ping every 5 s, and without the second
    # option (grpc.keepalive_timeout_ms has no effect here) gRPC would give it a minute.
    ("grpc.keepalive_time_ms", 5000),
    ("grpc.http2.ping_timeout_ms", 2000),
    ("grpc.keepalive_permit_without_calls", 1),
    # By default gRPC waits up to two minutes between attempts to connect.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 3000),
    ("grpc.max_receive_message_length", LARGEST_MESSAGE),
    # A proxy meant for web traffic must not carry the control plane.
    ("grpc.enable_http_proxy", 0),
    # Without this a store opened anew inherits the connections and the backoff of the one before.
    ("grpc.use_local_subchannel_pool", 1),
)


class Connection:
    """A channel that connects when it is first used, and again whenever it must.  All its methods raise
    StoreError and its kinds, never gRPC's errors."""

    def __init__(self, target: str, endpoints: Iterable[Endpoint]) -> None:
        self.where = ", ".join(map(str, endpoints))
        self.channel = grpc.insecure_channel(target, options=OPTIONS)
        self.kv = rpc.KVStub(self.channel)
        self.lease = rpc.LeaseStub(self.channel)
        self.watch = rpc.WatchStub(self.channel)
        # A stream of one request gets one answer and then ends, which is what a unary call looks like on the
        # wire.  So each keepalive has a stream of its own, and none is left behind in doubt.
        self.keep_alive = self.channel.unary_unary(
            "/etcdserverpb.Lease/LeaseKeepAlive",
            request_serializer=rpc.LeaseKeepAliveRequest.SerializeToString,
            response_deserializer=rpc.LeaseKeepAliveResponse.FromString,
        )

    async def ask(self, method: Any, request: Any) -> Any:
        """Make a unary call and wait for its answer; cancelling the wait cancels the call."""
        answered = trio.Event()
        token = trio.lowlevel.current_trio_token()
        call = method.future(request, timeout=DEADLINE)

        def wake(_: object) -> None:
            with suppress(trio.RunFinishedError):  # cancelled, and the run ended before gRPC told us so
                token.run_sync_soon(answered.set)

        call.add_done_callback(wake)
        try:
            await answered.wait()
        finally:
            call.cancel()  # of no effect on an answered call
        try:
            return call.result()
        except grpc.RpcError as error:
            raise translate(self.where, error, DEADLINE) from error

    def close(self) -> None:
        self.channel.close()
