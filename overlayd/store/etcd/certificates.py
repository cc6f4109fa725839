"""The certificates and the key on disk: read, checked before gRPC gets them, and read again as they are rotated.

What gRPC would say of a bad file is "failed to create security handshaker", at the first connection.  So the
files are checked here with Python's own OpenSSL.  The check sees the bytes that were read and not the files, which
may have changed meanwhile.
"""

from __future__ import annotations

import logging
import os
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from overlayd.store.etcd.access import AccessError, TlsFiles

LOOK = 60.0
"""Seconds after which the files are looked at again; after a failed call that is done at once."""

SYSTEM_BUNDLES = (
    Path("/etc/ssl/certs/ca-certificates.crt"),  # Debian, Alpine, Arch
    Path("/etc/pki/tls/certs/ca-bundle.crt"),  # Fedora, Red Hat
    Path("/etc/ssl/ca-bundle.pem"),  # SUSE
)
"""Where distributions keep the authorities that a host trusts; OpenSSL's own idea of it comes first."""

log = logging.getLogger("overlayd.store.etcd")


@dataclass(frozen=True, slots=True)
class Certificates:
    """PEM, checked.  `cert` and `key` are None where we show nothing of ourselves."""

    ca: bytes
    cert: bytes | None
    key: bytes | None = field(repr=False)


class CertificateFiles:
    """The certificates in force.  Files that can't be used (a rotation half done) change nothing but the log."""

    def __init__(self, files: TlsFiles, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises AccessError."""
        self._files = files
        self._clock = clock
        self._certificates = read_certificates(files)
        self._look_at = clock() + LOOK
        self._complaint = ""

    def doubt(self) -> None:
        """Read the files again before the next call: one failed, perhaps because they are new."""
        self._look_at = self._clock()

    def current(self) -> Certificates:
        if self._clock() >= self._look_at:
            self._look_at = self._clock() + LOOK
            self._look()
        return self._certificates

    def _look(self) -> None:
        try:
            found = read_certificates(self._files, self._certificates)
        except AccessError as error:
            if str(error) != self._complaint:
                log.warning("new certificates for etcd can't be used; the old stay", extra={"reason": error})
            self._complaint = str(error)
            return
        self._complaint = ""
        if found != self._certificates:
            log.info("new certificates for etcd read")
            self._certificates = found


def read_certificates(files: TlsFiles, known: Certificates | None = None) -> Certificates:
    """Read the files, and check them unless they hold what is `known`.  Raises AccessError, naming the option."""
    ca = files.ca or find_system_bundle()
    found = Certificates(
        _read("--etcd-cafile", ca),
        None if files.cert is None else _read("--etcd-certfile", files.cert),
        None if files.key is None else _read("--etcd-keyfile", files.key),
    )
    if found != known:
        _check_certificates("--etcd-cafile", ca, found.ca)
        if files.cert is not None and files.key is not None and found.cert is not None and found.key is not None:
            _check_certificates("--etcd-certfile", files.cert, found.cert)
            _check_pair(files.cert, files.key, found.cert, found.key)
    return found


def find_system_bundle() -> Path:
    """Find the file with the authorities that this host trusts.  Raises AccessError where there is none."""
    own = ssl.get_default_verify_paths().cafile  # heeds $SSL_CERT_FILE
    candidates = (*([Path(own)] if own else []), *SYSTEM_BUNDLES)
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise AccessError(
        f"this host keeps no certificates of authorities ({', '.join(map(str, candidates))}): install the package "
        "ca-certificates, or name the authority that signed etcd's with --etcd-cafile"
    )


def _read(flag: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise AccessError(f"{flag} {path} can't be read: {error.strerror}") from error


def _check_certificates(flag: str, path: Path, pem: bytes) -> None:
    try:
        with _as_file(pem) as name:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(name)
    except ssl.SSLError as error:
        raise AccessError(f"{flag} {path} holds no whole certificate in PEM{_reason(error)}") from error


def _check_pair(cert_file: Path, key_file: Path, cert: bytes, key: bytes) -> None:
    def refuse_passphrase() -> NoReturn:  # without it OpenSSL asks for one on the terminal
        raise AccessError(f"--etcd-keyfile {key_file} is encrypted: a daemon needs it without a passphrase")

    try:
        with _as_file(cert) as cert_name, _as_file(key) as key_name:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(cert_name, key_name, refuse_passphrase)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise AccessError(
                f"--etcd-keyfile {key_file} is not the key of --etcd-certfile {cert_file}: give the two that "
                "were made together"
            ) from error
        raise AccessError(f"--etcd-keyfile {key_file} holds no whole key in PEM{_reason(error)}") from error


@contextmanager
def _as_file(content: bytes) -> Iterator[str]:
    """Provide a file name for bytes without writing them to a disk: OpenSSL reads keys from files alone."""
    descriptor = os.memfd_create("pem")
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(content)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _reason(error: ssl.SSLError) -> str:
    """Return the reason that OpenSSL gives beyond "PEM lib", if it does."""
    return f" ({error.reason.replace('_', ' ').lower()})" if error.reason else ""
