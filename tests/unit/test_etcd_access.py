"""Which options fit together, and which certificate files are taken: the rest is refused in words that help."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from overlayd.store.etcd.access import AccessError, Login, TlsFiles, check_tls, make_login
from overlayd.store.etcd.certificates import LOOK, CertificateFiles, find_system_bundle, read_certificates
from overlayd.store.etcd.endpoints import parse_endpoint
from support.authority import Authority, KeyPair

CA, CERT, KEY = Path("/etc/ca.pem"), Path("/etc/cert.pem"), Path("/etc/key.pem")
HTTP, HTTPS = parse_endpoint("http://10.0.0.1:2379"), parse_endpoint("https://10.0.0.2:2379")


def test_the_endpoints_say_whether_there_is_tls() -> None:
    assert check_tls(TlsFiles(), [HTTP]) is False
    assert check_tls(TlsFiles(), [HTTPS]) is True
    assert check_tls(TlsFiles(CA), [HTTPS, HTTPS]) is True
    assert check_tls(TlsFiles(CA, CERT, KEY), [HTTPS]) is True
    assert check_tls(TlsFiles(None, CERT, KEY), [HTTPS]) is True


@pytest.mark.parametrize(
    ("files", "endpoints", "sentence"),
    [
        (TlsFiles(CA, CERT), [HTTPS], "--etcd-certfile /etc/cert.pem has no key: add --etcd-keyfile"),
        (TlsFiles(CA, None, KEY), [HTTPS], "--etcd-keyfile /etc/key.pem has no certificate: add --etcd-certfile"),
        (TlsFiles(), [HTTP, HTTPS], "mixes TLS (https://10.0.0.2:2379) and none (http://10.0.0.1:2379)"),
        (TlsFiles(CA), [HTTP], "--etcd-cafile is given, but http://10.0.0.1:2379 is spoken to without TLS"),
        (TlsFiles(None, CERT, KEY), [HTTP], "--etcd-certfile is given, but http://10.0.0.1:2379 is spoken"),
    ],
)
def test_what_does_not_fit_together_is_refused(files: TlsFiles, endpoints: list[object], sentence: str) -> None:
    with pytest.raises(AccessError) as refused:
        check_tls(files, endpoints)  # type: ignore[arg-type]
    assert sentence in str(refused.value)


def test_a_user_needs_a_password_and_a_password_a_user() -> None:
    assert make_login(None, None) is None
    assert make_login("overlayd", KEY) == Login("overlayd", KEY)
    with pytest.raises(AccessError, match="--etcd-username overlayd has no password: add --etcd-password-file"):
        make_login("overlayd", None)
    with pytest.raises(AccessError, match="--etcd-password-file names no user: add --etcd-username"):
        make_login(None, KEY)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def pair(authority: Authority, tmp_path: Path) -> KeyPair:
    """One that a test may spoil."""
    made = authority.issue("node1")
    pair = KeyPair(tmp_path / "cert.pem", tmp_path / "key.pem")
    pair.cert.write_bytes(made.cert.read_bytes())
    pair.key.write_bytes(made.key.read_bytes())
    return pair


def test_whole_files_are_taken_as_they_are(authority: Authority, pair: KeyPair) -> None:
    found = read_certificates(TlsFiles(authority.ca, pair.cert, pair.key))
    assert found.ca == authority.ca.read_bytes()
    assert (found.cert, found.key) == (pair.cert.read_bytes(), pair.key.read_bytes())
    assert "PRIVATE KEY" not in repr(found)
    assert read_certificates(TlsFiles(authority.ca)).cert is None


def encrypted(key: bytes) -> bytes:
    loaded = load_pem_private_key(key, None)
    return loaded.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))


def test_a_file_that_is_of_no_use_is_named_with_its_option(
    authority: Authority, pair: KeyPair, tmp_path: Path
) -> None:
    cert, key = pair.cert.read_bytes(), pair.key.read_bytes()
    other = authority.issue("node2").key.read_bytes()
    spoilt = tmp_path / "spoilt"

    def complaint(files: TlsFiles, content: bytes) -> str:
        spoilt.write_bytes(content)
        with pytest.raises(AccessError) as refused:
            read_certificates(files)
        return str(refused.value)

    for content in (b"", b"\xff\x00 rubbish", key, cert[:200]):
        said = complaint(TlsFiles(spoilt), content)
        assert said.startswith(f"--etcd-cafile {spoilt} holds no whole certificate in PEM")
        said = complaint(TlsFiles(authority.ca, spoilt, pair.key), content)
        assert said.startswith(f"--etcd-certfile {spoilt} holds no whole certificate in PEM")
    with_spoilt_key = TlsFiles(authority.ca, pair.cert, spoilt)
    for content in (b"", b"\xff\x00 rubbish", cert, key[:100]):
        assert complaint(with_spoilt_key, content).startswith(f"--etcd-keyfile {spoilt} holds no whole key in PEM")
    assert complaint(with_spoilt_key, other) == (
        f"--etcd-keyfile {spoilt} is not the key of --etcd-certfile {pair.cert}: "
        "give the two that were made together"
    )
    assert complaint(with_spoilt_key, encrypted(key)) == (
        f"--etcd-keyfile {spoilt} is encrypted: a daemon needs it without a passphrase"
    )
    absent = tmp_path / "absent"
    assert complaint(TlsFiles(absent), b"") == f"--etcd-cafile {absent} can't be read: No such file or directory"
    assert complaint(TlsFiles(tmp_path), b"") == f"--etcd-cafile {tmp_path} can't be read: Is a directory"


def test_a_host_without_authorities_is_told_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from overlayd.store.etcd import certificates

    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "absent"))
    monkeypatch.setattr(certificates, "SYSTEM_BUNDLES", (tmp_path / "none",))
    with pytest.raises(AccessError, match="install the package ca-certificates, or name the authority"):
        find_system_bundle()
    (tmp_path / "none").touch()
    assert find_system_bundle() == tmp_path / "none"


def test_files_are_looked_at_every_minute_and_after_a_doubt(
    authority: Authority, pair: KeyPair, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "overlayd.store.etcd")
    now = 0.0
    files = CertificateFiles(TlsFiles(authority.ca, pair.cert, pair.key), lambda: now)
    first = files.current()

    def rotate() -> None:
        made = authority.issue("node1")
        pair.cert.write_bytes(made.cert.read_bytes())
        pair.key.write_bytes(made.key.read_bytes())

    rotate()
    now = LOOK - 1
    assert files.current() is first
    now = LOOK
    second = files.current()
    assert second.cert == pair.cert.read_bytes()
    rotate()
    assert files.current() is second
    files.doubt()
    third = files.current()
    assert third.cert == pair.cert.read_bytes() != second.cert
    assert [record.message for record in caplog.records] == ["new certificates for etcd read"] * 2

    caplog.clear()
    pair.key.unlink()
    for _ in range(3):
        files.doubt()
        assert files.current() is third
    assert [record.message for record in caplog.records] == [
        "new certificates for etcd can't be used; the old stay"
    ]
    rotate()
    files.doubt()
    assert files.current().key == pair.key.read_bytes()
