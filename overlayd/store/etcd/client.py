"""The Store protocol in etcd's API v3."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from operator import attrgetter
from typing import Any, TypeVar

from overlayd.core.leases.store import (
    CONFIG,
    OWN,
    SUBNETS,
    Changes,
    Committed,
    Compacted,
    Delete,
    Field,
    Grant,
    Guard,
    Put,
    Record,
    Refused,
    Snapshot,
    StoreError,
    StoreRefused,
    Transaction,
)
from overlayd.store.etcd.access import ANONYMOUS, Access, check_tls
from overlayd.store.etcd.certificates import CertificateFiles
from overlayd.store.etcd.connection import Connection, Metadata
from overlayd.store.etcd.endpoints import parse_endpoint
from overlayd.store.etcd.failure import Unreached
from overlayd.store.etcd.keys import Keyspace, parse_prefix
from overlayd.store.etcd.schema import rpc
from overlayd.store.etcd.session import EtcdSession
from overlayd.store.etcd.watch import open_watch, record

T = TypeVar("T")

PAGE = 128
"""Records asked for at once: at etcd's limit of 1.5 MiB each they still fit into LARGEST_MESSAGE."""


@asynccontextmanager
async def open_etcd(
    endpoints: Sequence[str], prefix: str, *, access: Access = ANONYMOUS
) -> AsyncGenerator[EtcdStore]:
    """Open the store below a prefix of the etcd cluster whose members listen at `endpoints` (see parse_endpoint).

    Opening it asks nothing of etcd.  Raises ValueError for a wrong endpoint or prefix, AccessError (a ValueError)
    for certificates or a password that can't be used.
    """
    if not endpoints:
        raise ValueError("no etcd endpoint given; write it like http://10.99.255.1:2379")
    members = [parse_endpoint(endpoint) for endpoint in endpoints]
    keys = Keyspace(parse_prefix(prefix))
    certificates = CertificateFiles(access.tls) if check_tls(access.tls, members) else None
    session = EtcdSession(access.login)
    current = None if certificates is None else certificates.current
    connections = [Connection(member, current) for member in dict.fromkeys(members)]
    try:
        yield EtcdStore(connections, keys, session, certificates)
    finally:
        for connection in connections:
            connection.close()


class EtcdStore:
    """See overlayd.core.leases.store.Store.

    Each member of the cluster has a connection of its own.  (gRPC would take all addresses in one, but it leaves
    a member only when the line breaks: never one that answers and has lost its quorum.  And it would look for the
    name of the first in every member's certificate.)  Calls go to one member until it fails, then to the next.
    """

    def __init__(
        self,
        connections: Sequence[Connection],
        keys: Keyspace,
        session: EtcdSession,
        certificates: CertificateFiles | None,
    ) -> None:
        self._connections = deque(connections)
        self._keys = keys
        self._session = session
        self._certificates = certificates

    async def snapshot(self) -> Snapshot:
        ranges = [
            rpc.RangeRequest(key=self._keys.key(CONFIG)),
            *(
                rpc.RangeRequest(key=first, range_end=end, limit=PAGE)
                for first, end in map(self._keys.below, (SUBNETS, OWN))
            ),
        ]
        at_once = [rpc.RequestOp(request_range=asked) for asked in ranges]
        answer = await self._ask("kv.Txn", rpc.TxnRequest(success=at_once))
        revision = answer.header.revision
        config, subnets, own = [
            await self._rest(asked.range_end, response.response_range, revision)
            for asked, response in zip(ranges, answer.responses, strict=True)
        ]
        return Snapshot(revision, next(iter(config), None), subnets, own)

    async def _rest(self, end: bytes, part: Any, revision: int) -> tuple[Record, ...]:
        """Return the records of a range, of which `part` is the first page."""
        found = [*part.kvs]
        while part.more:
            page = rpc.RangeRequest(key=found[-1].key + b"\0", range_end=end, limit=PAGE, revision=revision)
            part = await self._ask("kv.Range", page)
            found += part.kvs
        return tuple(record(self._keys, kv) for kv in found)

    async def grant(self, ttl: int) -> Grant:
        answer = await self._ask("lease.LeaseGrant", rpc.LeaseGrantRequest(TTL=ttl))
        return Grant(answer.ID, answer.TTL)

    async def keepalive(self, lease_id: int) -> int:
        answer = await self._ask("keep_alive", rpc.LeaseKeepAliveRequest(ID=lease_id))
        return int(answer.TTL)

    async def revoke(self, lease_id: int) -> None:
        try:
            await self._ask("lease.LeaseRevoke", rpc.LeaseRevokeRequest(ID=lease_id))
        except StoreRefused as refused:
            if not _is_missing_lease(refused):
                raise

    async def commit(self, transaction: Transaction) -> Committed | Refused:
        request = rpc.TxnRequest(
            compare=[self._compare(guard) for guard in transaction.guards],
            success=[self._request(action) for action in transaction.actions],
        )
        answer = await self._ask("kv.Txn", request)
        return (Committed if answer.succeeded else Refused)(answer.header.revision)

    @asynccontextmanager
    async def watch(self, after: int) -> AsyncGenerator[AsyncIterator[Changes]]:
        async with AsyncExitStack() as stack:

            async def begin(connection: Connection) -> tuple[Connection, AsyncIterator[Changes]]:
                wire = connection.wire()

                async def attempt(metadata: Metadata) -> AsyncIterator[Changes]:
                    return await stack.enter_async_context(open_watch(wire, self._keys, after, metadata))

                return connection, await self._session.call(wire, attempt)

            connection, changes = await self._at_a_member(begin)
            try:
                yield changes
            except StoreError as error:
                self._turn_from(connection, error)
                raise

    async def _ask(self, method: str, request: Any) -> Any:
        async def ask(connection: Connection) -> Any:
            wire = connection.wire()
            call = attrgetter(method)(wire)
            return await self._session.call(wire, lambda metadata: wire.ask(call, request, metadata))

        return await self._at_a_member(ask)

    async def _at_a_member(self, attempt: Callable[[Connection], Awaitable[T]]) -> T:
        """Make an attempt at the member whose turn it is, or else at the first that is reached at all."""
        unreached: list[str] = []
        for connection in tuple(self._connections):
            try:
                return await attempt(connection)
            except StoreError as error:
                self._turn_from(connection, error)
                if not isinstance(error, Unreached):
                    raise
                unreached.append(str(error))
        raise Unreached("; ".join(unreached))

    def _turn_from(self, connection: Connection, error: StoreError) -> None:
        """Turn to another member after an error of the member or of the connection."""
        if isinstance(error, StoreRefused | Compacted):
            return
        if connection is self._connections[0]:
            self._connections.rotate(-1)
        if self._certificates is not None:
            self._certificates.doubt()

    def _compare(self, guard: Guard) -> Any:
        key, equal = self._keys.key(guard.name), rpc.Compare.EQUAL
        match guard.field:
            case Field.CREATE_REVISION:
                return rpc.Compare(key=key, result=equal, target=rpc.Compare.CREATE, create_revision=guard.equals)
            case Field.MOD_REVISION:
                return rpc.Compare(key=key, result=equal, target=rpc.Compare.MOD, mod_revision=guard.equals)
            case Field.LEASE_ID:
                return rpc.Compare(key=key, result=equal, target=rpc.Compare.LEASE, lease=guard.equals)

    def _request(self, action: Put | Delete) -> Any:
        key = self._keys.key(action.name)
        match action:
            case Put(value=value, lease_id=lease_id):
                return rpc.RequestOp(request_put=rpc.PutRequest(key=key, value=value, lease=lease_id))
            case Delete():
                return rpc.RequestOp(request_delete_range=rpc.DeleteRangeRequest(key=key))


def _is_missing_lease(refused: StoreRefused) -> bool:
    cause: Any = refused.__cause__
    return cause is not None and "lease not found" in cause.details()
