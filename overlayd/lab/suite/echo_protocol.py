"""The protocol between client and responder: pure bytes.

A question and an answer are each one line of JSON and then a payload.  A question has a nonce and the size of the
payload that it wants back.  The answer has the nonce, the responder's own name, the source address that it saw,
and the hash of the payload that it received.  Payloads follow from the nonce, so each end knows what it must
receive.  Over UDP a message is a datagram; over TCP it ends where its sender shuts down the connection.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

MOST = 65_507
"""The longest payload of a UDP datagram over IPv4: 65,535 less 20 of IP header and 8 of UDP header (RFC 768)."""


class ExchangeError(ValueError):
    """These bytes are not a message of this protocol; the text says why."""


@dataclass(frozen=True, slots=True)
class EchoRequest:
    """A question.  `payload` and `wanted` are the sizes, in bytes, of what is sent and of what must come back."""

    nonce: str
    payload: int = 0
    wanted: int = 0

    def encode(self) -> bytes:
        head = json.dumps({"nonce": self.nonce, "wanted": self.wanted}).encode() + b"\n"
        return head + content(self.nonce, "question", self.payload)

    @classmethod
    def of_size(cls, nonce: str, size: int) -> EchoRequest:
        """Make the question whose encoding is exactly `size` bytes long."""
        return cls(nonce, payload=size - len(cls(nonce).encode()))


@dataclass(frozen=True, slots=True)
class EchoReply:
    """An answer.  `source` is the client's address as the responder saw it, `digest` its payload's SHA-256."""

    nonce: str
    responder: str
    source: str
    digest: str
    payload: bytes

    def encode(self) -> bytes:
        head = {"nonce": self.nonce, "responder": self.responder, "source": self.source, "sha256": self.digest}
        return json.dumps(head).encode() + b"\n" + self.payload


def content(nonce: str, purpose: str, size: int) -> bytes:
    """Make the payload for a purpose: bytes that look random, and are always the same."""
    return hashlib.shake_256(f"{nonce} {purpose}".encode()).digest(size)


def answer_to(message: bytes, responder: str, source: str) -> EchoReply:
    """Make the answer of a responder of this name.  Raises ExchangeError."""
    head, payload = _split(message)
    nonce, wanted = head.get("nonce"), head.get("wanted")
    if not isinstance(nonce, str) or not isinstance(wanted, int) or not 0 <= wanted <= MOST:
        raise ExchangeError(f"no nonce and size in {head!r}")
    digest = hashlib.sha256(payload).hexdigest()
    return EchoReply(nonce, responder, source, digest, content(nonce, f"answer of {responder}", wanted))


def parse_answer(message: bytes) -> EchoReply:
    """Parse an answer.  Raises ExchangeError."""
    head, payload = _split(message)
    nonce, responder, source, digest = (head.get(key) for key in ("nonce", "responder", "source", "sha256"))
    if not (
        isinstance(nonce, str)
        and isinstance(responder, str)
        and isinstance(source, str)
        and isinstance(digest, str)
    ):
        raise ExchangeError(f"not an answer: {head!r}")
    return EchoReply(nonce, responder, source, digest, payload)


def why_wrong(question: EchoRequest, answer: EchoReply, responder: str) -> str | None:
    """Tell what is wrong with an answer to this question from the end of that name; None if nothing is."""
    if answer.responder != responder:
        return f"answered by {answer.responder}"
    if answer.nonce != question.nonce:
        return f"{responder} answered another question than the one asked"
    sent = content(question.nonce, "question", question.payload)
    if answer.digest != hashlib.sha256(sent).hexdigest():
        return f"the {question.payload} bytes sent arrived changed"
    if answer.payload != content(question.nonce, f"answer of {responder}", question.wanted):
        return f"of the {question.wanted} bytes asked for {len(answer.payload)} came, or changed"
    return None


def _split(message: bytes) -> tuple[dict[str, object], bytes]:
    line, newline, payload = message.partition(b"\n")
    if not newline:
        raise ExchangeError(f"{len(message)} bytes without a head line")
    try:
        head = json.loads(line)
    except ValueError as error:
        raise ExchangeError(f"head line is not JSON: {error}") from error
    if not isinstance(head, dict):
        raise ExchangeError(f"head line is not an object: {head!r}")
    return head, payload
