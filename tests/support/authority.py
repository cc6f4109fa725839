"""An authority that signs certificates for tests, and files to keep them in."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme

DAY = timedelta(days=1)


@dataclass(frozen=True)
class KeyPair:
    """A certificate and its key, as PEM files."""

    cert: Path
    key: Path


class Authority:
    """Keeps all its files in `home`."""

    def __init__(self, home: Path) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self._home = home
        self._ca = trustme.CA()
        self._issued = 0
        self.ca = home / "ca.pem"
        self._ca.cert_pem.write_to_path(self.ca)

    def issue(self, *names: str, days: tuple[int, int] = (-1, 1)) -> KeyPair:
        """A new pair for hosts, addresses or a client; good from and to so many days from now."""
        self._issued += 1
        pair = KeyPair(self._home / f"{self._issued}.pem", self._home / f"{self._issued}.key")
        now = datetime.now(UTC)
        made = self._ca.issue_cert(*names, not_before=now + days[0] * DAY, not_after=now + days[1] * DAY)
        made.cert_chain_pems[0].write_to_path(pair.cert)
        made.private_key_pem.write_to_path(pair.key)
        return pair
