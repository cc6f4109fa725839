"""The session with etcd: the token of every call, fetched with the password, and renewed once it is refused.

A token is refused when it has expired, when the member that made it up has forgotten it, and when any user, role
or password in etcd was changed since.  None of that is an error of ours, so a call is made once more with a new
token.  It can be, even a write: etcd looks at the token before it does anything.
"""

from __future__ import annotations

import logging
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import trio

from overlayd.core.leases.store import StoreRefused
from overlayd.store.etcd.access import AccessError, Login
from overlayd.store.etcd.connection import EtcdTransport, Metadata
from overlayd.store.etcd.failure import AuthOff, NotAuthenticated
from overlayd.store.etcd.schema import rpc

T = TypeVar("T")

log = logging.getLogger("overlayd.store.etcd")


class EtcdSession:
    """Without a login, calls are made anonymously."""

    def __init__(self, login: Login | None) -> None:
        """Raises AccessError for a password file that is of no use."""
        self._login = login
        self._metadata: Metadata | None = () if login is None else None
        self._turn = trio.Lock()
        if login is not None:
            read_password(login.password_file)
            _warn_if_public(login.password_file)

    async def call(self, wire: EtcdTransport, attempt: Callable[[Metadata], Awaitable[T]]) -> T:
        """Make an attempt with what proves who we are, and a second one if that was refused."""
        metadata = await self._identify(wire)
        try:
            return await attempt(metadata)
        except NotAuthenticated:
            if self._login is None:
                raise
            self.forget(metadata)
        return await attempt(await self._identify(wire))

    def forget(self, metadata: Metadata) -> None:
        """Forget a refused token, unless another call has replaced it by now."""
        if self._login is not None and self._metadata == metadata:
            self._metadata = None

    async def _identify(self, wire: EtcdTransport) -> Metadata:
        async with self._turn:
            if self._metadata is None:
                assert self._login is not None
                self._metadata = await _authenticate(wire, self._login)
            return self._metadata


async def _authenticate(wire: EtcdTransport, login: Login) -> Metadata:
    try:
        password = read_password(login.password_file)
    except AccessError as error:
        raise StoreRefused(str(error)) from error
    request = rpc.AuthenticateRequest(name=login.username, password=password)
    try:
        answer = await wire.ask(wire.auth.Authenticate, request)
    except AuthOff:
        return ()  # as etcd's own clients do: so passwords can be handed out first and asked for later
    return (("token", answer.token),)


def read_password(path: Path) -> str:
    """Read the password in the file, without the newline at its end.  Raises AccessError."""
    try:
        password = path.read_text(encoding="utf-8").removesuffix("\n").removesuffix("\r")
    except OSError as error:
        raise AccessError(f"--etcd-password-file {path} can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise AccessError(f"--etcd-password-file {path} holds something else than text in UTF-8") from error
    if not password:
        raise AccessError(f"--etcd-password-file {path} is empty: it holds the password and nothing else")
    return password


def _warn_if_public(path: Path) -> None:
    if path.stat().st_mode & stat.S_IROTH:
        log.warning(
            "every user of this host can read etcd's password", extra={"path": path, "remedy": "chmod 600"}
        )
