"""gRPC's errors as an operator gets to read them."""

from __future__ import annotations

from dataclasses import dataclass

import grpc
import pytest

from overlayd.core.leases.store import Compacted, StoreError, StoreRefused
from overlayd.store.etcd.failure import NotAuthenticated, Unreached, translate, translate_cancel

Code = grpc.StatusCode


@dataclass
class RpcError:
    """As much of a grpc.RpcError as is looked at."""

    status: grpc.StatusCode
    text: str | None

    def code(self) -> grpc.StatusCode:
        return self.status

    def details(self) -> str | None:
        return self.text


@pytest.mark.parametrize(
    ("code", "details", "kind", "sentence"),
    [
        (Code.DEADLINE_EXCEEDED, "Deadline Exceeded", StoreError, "etcd at a:1 did not answer within 5 s"),
        (Code.UNKNOWN, "context deadline exceeded", StoreError, "etcd at a:1 did not answer within 5 s"),
        (
            Code.OUT_OF_RANGE,
            "etcdserver: mvcc: required revision has been compacted",
            Compacted,
            "etcd at a:1 has compacted the revision that was asked for",
        ),
        (Code.UNAVAILABLE, "etcdserver: no leader", StoreError, "etcd at a:1 failed: no leader (UNAVAILABLE)"),
        (Code.UNAVAILABLE, "Stream removed (ping timeout)", StoreError, "etcd at a:1 stopped answering"),
        (
            Code.UNAVAILABLE,
            "recvmsg:Connection reset by peer (104)",
            StoreError,
            "etcd at a:1 closed the connection",
        ),
        (
            Code.UNAVAILABLE,
            "something new",
            StoreError,
            "etcd at a:1 cannot be reached: something new",
        ),
        (
            Code.RESOURCE_EXHAUSTED,
            "etcdserver: mvcc: database space exceeded",
            StoreError,
            "etcd at a:1 failed: mvcc: database space exceeded (RESOURCE_EXHAUSTED)",
        ),
        (
            Code.PERMISSION_DENIED,
            "etcdserver: permission denied",
            StoreRefused,
            "etcd at a:1 lets this user not read and write there: "
            "`etcdctl role grant-permission ROLE readwrite PREFIX/ --prefix` allows it",
        ),
        (
            Code.UNAVAILABLE,
            "failed to connect to all addresses; last error: UNKNOWN: ipv4:10.0.0.1:1: Connection refused",
            Unreached,
            "etcd at a:1 refuses the connection: nothing listens there, or a firewall answers for it",
        ),
        (
            Code.UNAVAILABLE,
            "DNS resolution failed for a:1: C-ares status is not ARES_SUCCESS: Domain name not found",
            Unreached,
            "etcd at a:1 cannot be reached: there is no such host name",
        ),
        (
            Code.UNAUTHENTICATED,
            "etcdserver: invalid auth token",
            NotAuthenticated,
            "etcd at a:1 does not accept the token that it gave out",
        ),
        (
            Code.UNKNOWN,
            "auth: revision in header is old",
            NotAuthenticated,
            "etcd at a:1 has changed its users while it was asked",
        ),
        (
            Code.NOT_FOUND,
            "etcdserver: requested lease not found",
            StoreRefused,
            "etcd at a:1 refused: requested lease not found",
        ),
        (
            Code.UNIMPLEMENTED,
            "Received http2 header with status: 404",
            StoreRefused,
            "what answers at a:1 is not an etcd with API v3: Received http2 header with status: 404",
        ),
        (Code.INTERNAL, None, StoreError, "etcd at a:1 failed: it gave no reason (INTERNAL)"),
    ],
)
def test_each_failure_has_its_kind_and_its_sentence(
    code: grpc.StatusCode, details: str | None, kind: type[StoreError], sentence: str
) -> None:
    error = translate("a:1", RpcError(code, details), 5.0)
    assert (type(error), str(error)) == (kind, sentence)


@pytest.mark.parametrize("code", list(Code))
def test_no_code_is_left_over(code: grpc.StatusCode) -> None:
    assert isinstance(translate("a:1", RpcError(code, ""), 5.0), StoreError)


@pytest.mark.parametrize(
    ("reason", "kind", "sentence"),
    [
        ("etcdserver: no leader", StoreError, "etcd at a:1 ended the watch: etcdserver: no leader"),
        ("", StoreError, "etcd at a:1 ended the watch: it gave no reason"),
        (
            "rpc error: code = PermissionDenied desc = etcdserver: permission denied",
            NotAuthenticated,
            "etcd at a:1 lets this user not read and write there: "
            "`etcdctl role grant-permission ROLE readwrite PREFIX/ --prefix` allows it",
        ),
        (
            "etcdserver: invalid auth token",
            NotAuthenticated,
            "etcd at a:1 does not accept the token that it gave out",
        ),
    ],
)
def test_a_cancelled_watch_may_be_a_matter_of_the_token(
    reason: str, kind: type[StoreError], sentence: str
) -> None:
    error = translate_cancel("a:1", reason)
    assert (type(error), str(error)) == (kind, sentence)
