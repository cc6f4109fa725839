"""How etcd is to be told who we are, and how we make sure that it is etcd: as options say it, nothing read yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from overlayd.store.etcd.endpoints import EtcdEndpoint


class AccessError(ValueError):
    """The options don't fit together, or a file that they name is of no use: a sentence that says what would."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files.  `ca`: the CA bundle that verifies etcd's certificate, None for the system's.  `cert` and
    `key`: what we show of ourselves (mTLS), both or neither."""

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None


@dataclass(frozen=True, slots=True)
class Login:
    """A user name for etcd and the file with the password."""

    username: str
    password_file: Path


@dataclass(frozen=True, slots=True)
class Access:
    tls: TlsFiles = TlsFiles()
    login: Login | None = None


ANONYMOUS = Access()


def make_login(username: str | None, password_file: Path | None) -> Login | None:
    """Make a login of both; raises AccessError for one without the other."""
    if username is None and password_file is None:
        return None
    if username is None:
        raise AccessError("--etcd-password-file names no user: add --etcd-username")
    if password_file is None:
        raise AccessError(f"--etcd-username {username} has no password: add --etcd-password-file")
    return Login(username, password_file)


def check_tls(files: TlsFiles, endpoints: Sequence[EtcdEndpoint]) -> bool:
    """Tell whether the endpoints are spoken to with TLS.  Raises AccessError where that is unclear."""
    if files.cert is not None and files.key is None:
        raise AccessError(f"--etcd-certfile {files.cert} has no key: add --etcd-keyfile")
    if files.key is not None and files.cert is None:
        raise AccessError(f"--etcd-keyfile {files.key} has no certificate: add --etcd-certfile")
    plain = [endpoint for endpoint in endpoints if not endpoint.tls]
    secure = [endpoint for endpoint in endpoints if endpoint.tls]
    if plain and secure:
        raise AccessError(
            f"--etcd-endpoints mixes TLS ({secure[0]}) and none (http://{plain[0]}): write all of them with https "
            "or all with http"
        )
    if plain and files != TlsFiles():
        flag = "--etcd-cafile" if files.ca is not None else "--etcd-certfile"
        raise AccessError(
            f"{flag} is given, but http://{plain[0]} is spoken to without TLS: write https:// in --etcd-endpoints"
        )
    return bool(secure)
