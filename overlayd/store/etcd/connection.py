"""A way to one member of etcd, and calls on it that trio can wait for and cancel."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import grpc
import trio

from overlayd.store.etcd.certificates import Certificates
from overlayd.store.etcd.endpoints import EtcdEndpoint
from overlayd.store.etcd.failure import translate
from overlayd.store.etcd.schema import rpc

Metadata = tuple[tuple[str, str], ...]
"""What goes along with a call, in its HTTP/2 headers."""

DEADLINE = 5.0
"""Seconds within which etcd must answer any call."""

LARGEST_MESSAGE = 256 << 20
"""Bytes that an answer may have.  gRPC's own limit is 4 MiB, which three records of somebody else's rubbish
can pass: etcd takes requests of up to 1.5 MiB (its --max-request-bytes)."""

OPTIONS: tuple[tuple[str, int], ...] = (
    # A member that is frozen or cut off is noticed in 10 s: etcd allows a ping every 5 s, and without the second
    # option (grpc.keepalive_timeout_ms has no effect here) gRPC would give it a minute.  An answer within 2 s was
    # too much to ask of a busy machine: it was taken for a dead one.
    ("grpc.keepalive_time_ms", 5000),
    ("grpc.http2.ping_timeout_ms", 5000),
    ("grpc.keepalive_permit_without_calls", 1),
    # By default gRPC waits up to two minutes between attempts to connect.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 3000),
    ("grpc.max_receive_message_length", LARGEST_MESSAGE),
    # A proxy meant for web traffic must not carry the control plane.
    ("grpc.enable_http_proxy", 0),
    # Without this a store opened again inherits the connections and the backoff of the one before.
    ("grpc.use_local_subchannel_pool", 1),
)


class EtcdTransport:
    """A gRPC channel and etcd's services on it.  It connects when it is first used, and again whenever it must,
    always with the same certificates."""

    def __init__(self, endpoint: EtcdEndpoint, certificates: Certificates | None) -> None:
        self.where = str(endpoint)
        self.certificates = certificates
        self._users = 0
        self._retired = False
        if certificates is None:
            self._channel = grpc.insecure_channel(endpoint.target, options=OPTIONS)
        else:
            shown = grpc.ssl_channel_credentials(certificates.ca, certificates.key, certificates.cert)
            self._channel = grpc.secure_channel(endpoint.target, shown, options=OPTIONS)
        self.kv = rpc.KVStub(self._channel)
        self.lease = rpc.LeaseStub(self._channel)
        self.watch = rpc.WatchStub(self._channel)
        self.auth = rpc.AuthStub(self._channel)
        # A stream of one request gets one answer and then ends, which is what a unary call looks like on the
        # wire.  So each keepalive has a stream of its own, and none is left behind in doubt.
        self.keep_alive = self._channel.unary_unary(
            "/etcdserverpb.Lease/LeaseKeepAlive",
            request_serializer=rpc.LeaseKeepAliveRequest.SerializeToString,
            response_deserializer=rpc.LeaseKeepAliveResponse.FromString,
        )

    async def ask(self, method: Any, request: Any, metadata: Metadata = ()) -> Any:
        """Make a unary call and wait for its answer; cancelling the wait cancels the call.  Raises StoreError and
        its kinds, never gRPC's errors."""
        answered = trio.Event()
        token = trio.lowlevel.current_trio_token()
        call = method.future(request, timeout=DEADLINE, metadata=metadata)

        def wake(_: object) -> None:
            with suppress(trio.RunFinishedError):  # cancelled, and the run ended before gRPC told us so
                token.run_sync_soon(answered.set)

        call.add_done_callback(wake)
        with self.use():
            try:
                await answered.wait()
            finally:
                call.cancel()  # of no effect on an answered call
        try:
            return call.result()
        except grpc.RpcError as error:
            raise translate(self.where, error, DEADLINE) from error

    @contextmanager
    def use(self) -> Iterator[None]:
        """Keep the connection open while the block runs, even if it is retired."""
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1
            if self._retired and not self._users:
                self.close()

    def retire(self) -> None:
        """Close as soon as nobody uses it."""
        self._retired = True
        with self.use():
            pass

    def close(self) -> None:
        self._channel.close()


class Connection:
    """A way that lasts: when the certificates are new, so is the wire.  What runs on the old one (a watch may, for
    months) goes on there."""

    def __init__(self, endpoint: EtcdEndpoint, certificates: Callable[[], Certificates] | None) -> None:
        self._endpoint = endpoint
        self._certificates = certificates
        self._wire = self._make()

    def wire(self) -> EtcdTransport:
        if self._certificates is not None and self._certificates() != self._wire.certificates:
            self._wire.retire()
            self._wire = self._make()
        return self._wire

    def _make(self) -> EtcdTransport:
        return EtcdTransport(self._endpoint, None if self._certificates is None else self._certificates())

    def close(self) -> None:
        self._wire.close()
