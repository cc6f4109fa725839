"""What the daemon tells over HTTP: four pages, each a pure function of one Answer.

/healthz and /readyz answer 200 or 503 with the reason, which is all that a probe looks at; /metrics is for
Prometheus; /status is what `overlayd status --json` prints.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

import msgspec

from overlayd.api.metrics import CONTENT_TYPE, exposition
from overlayd.core.status.health import why_not_alive, why_not_ready
from overlayd.core.status.status import StatusAnswer

_TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Page:
    """A response: its status code (RFC 9110, section 15), the media type of its body, the body."""

    status: int
    media_type: str
    body: bytes


def respond(path: str, answer: StatusAnswer) -> Page:
    """Return the page at `path`, or one that says which pages there are."""
    page = _PAGES.get(path)
    return explain(HTTPStatus.NOT_FOUND, f"there are {', '.join(_PAGES)}") if page is None else page(answer)


def explain(status: int, *lines: str) -> Page:
    """Return a page of plain sentences."""
    return Page(status, _TEXT, "".join(f"{line}\n" for line in lines).encode())


def _healthz(answer: StatusAnswer) -> Page:
    return _verdict(why_not_alive(answer), "alive")


def _readyz(answer: StatusAnswer) -> Page:
    """Answer with readiness, and if not ready, with the present problems: one of them is likely to be the
    cause."""
    problems = [f"{problem.code}: {problem.text}" for problem in answer.status.problems]
    return _verdict(why_not_ready(answer), "ready", problems)


def _verdict(trouble: str, word: str, more: list[str] | None = None) -> Page:
    if not trouble:
        return explain(HTTPStatus.OK, word)
    return explain(HTTPStatus.SERVICE_UNAVAILABLE, f"not {word}: {trouble}", *(more or []))


def _metrics(answer: StatusAnswer) -> Page:
    return Page(HTTPStatus.OK, CONTENT_TYPE, exposition(answer))


def _status(answer: StatusAnswer) -> Page:
    return Page(HTTPStatus.OK, "application/json", msgspec.json.encode(answer) + b"\n")


_PAGES: dict[str, Callable[[StatusAnswer], Page]] = {
    "/healthz": _healthz,
    "/readyz": _readyz,
    "/metrics": _metrics,
    "/status": _status,
}
