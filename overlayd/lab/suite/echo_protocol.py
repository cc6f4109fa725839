"""The question and the answer between two ends: pure bytes.

Both are one line of JSON and then a payload.  A question carries a nonce and how long a payload it wants back;
the answer carries the nonce, the responder's own name, the address that it saw the question come from, and the
hash of the payload that it got.  Payloads are made from the nonce, so each end knows what it must receive.
Over UDP a message is a datagram; over TCP it ends where its sender shuts down.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

MOST = 65_507
"""The longest payload of a UDP datagram over IPv4: 65,535 less 20 of IP header and 8 of UDP header (RFC 768)."""


class ExchangeError(ValueError):
    """These bytes are no message of ours; the text says why."""


@dataclass(frozen=True, slots=True)
class EchoRequest:
    """`payload` and `wanted` are sizes in bytes: what is sent along, and what shall come back."""

    nonce: str
    payload: int = 0
    wanted: int = 0

    def encode(self) -> bytes:
        head = json.dumps({"nonce": self.nonce, "wanted": self.wanted}).encode() + b"\n"
        return head + content(self.nonce, "question", self.payload)

    @classmethod
    def of_size(cls, nonce: str, size: int) -> EchoRequest:
        """The question whose encoding is exactly `size` bytes long."""
        return cls(nonce, payload=size - len(cls(nonce).encode()))


@dataclass(frozen=True, slots=True)
class EchoReply:
    """`source` is the address of the asker as the responder saw it, `digest` the SHA-256 of the payload it got."""

    nonce: str
    responder: str
    source: str
    digest: str
    payload: bytes

    def encode(self) -> bytes:
        head = {"nonce": self.nonce, "responder": self.responder, "source": self.source, "sha256": self.digest}
        return json.dumps(head).encode() + b"\n" + self.payload


def content(nonce: str, purpose: str, size: int) -> bytes:
    """The payload of this purpose: bytes that look random and can be made again."""
    return hashlib.shake_256(f"{nonce} {purpose}".encode()).digest(size)


def answer_to(message: bytes, responder: str, source: str) -> EchoReply:
    """What a responder of this name says to a question.  Raises ExchangeError."""
    head, payload = _split(message)
    nonce, wanted = head.get("nonce"), head.get("wanted")
    if not isinstance(nonce, str) or not isinstance(wanted, int) or not 0 <= wanted <= MOST:
        raise ExchangeError(f"no nonce and size in {head!r}")
    digest = hashlib.sha256(payload).hexdigest()
    return EchoReply(nonce, responder, source, digest, content(nonce, f"answer of {responder}", wanted))


def parse_answer(message: bytes) -> EchoReply:
    """Raises ExchangeError."""
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
    """What is wrong with this answer to this question from the end of that name, or None."""
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
