"""How etcd and gRPC say no, turned into our errors and into sentences for an operator.  Nowhere else."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import grpc

from overlayd.core.leases.store import Compacted, StoreError, StoreRefused

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


class Unreached(StoreError):
    """There was no connection, so the request never left: asking another member is safe, even a write."""


class NotAuthenticated(StoreRefused):
    """etcd does not know who asks, or no longer: it has done nothing, and with a new token it may."""


class AuthOff(StoreRefused):
    """etcd asks nobody for a password."""


_MEANINGS: Mapping[str, tuple[type[StoreRefused], str]] = MappingProxyType(
    {
        "invalid auth token": (NotAuthenticated, "does not accept the token that it gave out"),
        "revision of auth store is old": (NotAuthenticated, "has changed its users while it was asked"),
        # etcd 3.5 says it in these words and as UNKNOWN where the change came while the request was under way.
        "auth: revision in header is old": (NotAuthenticated, "has changed its users while it was asked"),
        "user name is empty": (
            NotAuthenticated,
            "asks for a user: give --etcd-username and --etcd-password-file",
        ),
        "authentication is not enabled": (AuthOff, "asks nobody for a password"),
        "authentication failed, invalid user ID or password": (
            StoreRefused,
            "does not know this user with this password: correct --etcd-username or the --etcd-password-file",
        ),
        "permission denied": (
            StoreRefused,
            "lets this user not read and write there: "
            "`etcdctl role grant-permission ROLE readwrite PREFIX/ --prefix` allows it",
        ),
    }
)
"""Refusals in etcd's words (its api/v3rpc/rpctypes/error.go), and what they mean here."""

_NEVER_LEFT = ("failed to connect to all addresses", "DNS resolution failed")
"""How gRPC begins when it had no connection to send a request on."""

_NO_CONNECTION = tuple(
    (re.compile(sign, re.IGNORECASE), meaning)
    for sign, meaning in (
        ("connection refused", "refuses the connection: nothing listens there, or a firewall answers for it"),
        ("no route to host", "cannot be reached: no route to host"),
        ("network is unreachable", "cannot be reached: this host has no route to that network"),
        ("domain name not found", "cannot be reached: there is no such host name"),
        ("ping timeout", "stopped answering"),
        (
            "unable to get (local )?issuer|self.signed",
            "shows a certificate of an authority that is not trusted here: --etcd-cafile names the right one",
        ),
        (
            "hostname verification",
            "shows a certificate for another name: --etcd-endpoints must call it as its certificate does",
        ),
        ("certificate has expired", "shows a certificate that has expired (or this host's clock is wrong)"),
        ("not yet valid", "shows a certificate that is not valid yet (or this host's clock is wrong)"),
        (
            "alert_(bad_certificate|certificate_required|unknown_ca|certificate_expired)|alert_handshake_failure",
            "accepts no client without a certificate that it trusts: see --etcd-certfile and --etcd-keyfile",
        ),
        ("wrong_version_number|handshake read failed", "does not answer in TLS: perhaps it is http:// there"),
        ("last error: .*socket closed", "ends every new connection: perhaps it expects TLS, so https://"),
        ("socket closed", "closed the connection"),
        ("connection reset", "closed the connection"),
        ("http1", "does not speak etcd's protocol on that port: it answers in HTTP/1"),
    )
)
"""What the text of UNAVAILABLE contains when gRPC and not etcd says it, and what it means; the first counts."""


def no_answer(where: str, seconds: float) -> StoreError:
    return StoreError(f"etcd at {where} did not answer within {seconds:g} s")


def translate(where: str, error: Any, seconds: float) -> StoreError:
    """Make the StoreError for a gRPC error of a call to `where`, which was given `seconds` to answer."""
    code, details = error.code(), error.details() or "it gave no reason"
    if code is grpc.StatusCode.DEADLINE_EXCEEDED or details == _ITS_CLOCK_RAN_OUT:
        return no_answer(where, seconds)
    said = details.removeprefix("etcdserver: ")
    if code is grpc.StatusCode.OUT_OF_RANGE and "compacted" in said:
        return Compacted(f"etcd at {where} has compacted the revision that was asked for")
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return StoreRefused(f"what answers at {where} is not an etcd with API v3: {said}")
    if code in _REFUSALS or said in _MEANINGS:
        return refusal(where, said)
    if code is grpc.StatusCode.UNAVAILABLE and said == details:
        kind = Unreached if details.startswith(_NEVER_LEFT) else StoreError
        meanings = (meaning for sign, meaning in _NO_CONNECTION if sign.search(details))
        return kind(f"etcd at {where} {next(meanings, f'cannot be reached: {said}')}")
    return StoreError(f"etcd at {where} failed: {said} ({code.name})")


def refusal(where: str, said: str) -> StoreRefused:
    kind, meaning = _MEANINGS.get(said, (StoreRefused, f"refused: {said}"))
    return kind(f"etcd at {where} {meaning}")


def translate_cancel(where: str, reason: str) -> StoreError:
    """Make the StoreError for a watch that etcd cancels, which it says in an answer and not as an error in
    gRPC.

    Older servers say "permission denied" of an expired token, too, so here that may mean either.
    """
    said = reason.rpartition("desc = ")[2].removeprefix("etcdserver: ")
    if said in _MEANINGS:
        return NotAuthenticated(str(refusal(where, said)))
    return StoreError(f"etcd at {where} ended the watch: {reason or 'it gave no reason'}")
