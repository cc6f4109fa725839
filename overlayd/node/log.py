"""Log lines: time, level, what happened, then fields with fixed names.

    2026-11-20T12:00:00.123Z INFO peer joined node=node2 subnet=10.244.7.0/24 public_ip=10.99.0.2

A line says what changed, once.  The fields are: node, subnet, network, public_ip, backend, mtu, link, address,
revision, belief, operation, reason, remedy, code, path, add, change, remove, signal, version.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections.abc import Iterable
from typing import TextIO

from overlayd.core.changes import LogEvent

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
_PLAIN = re.compile(r"[\w.:/@%+,-]+", re.ASCII)


class FieldFormatter(logging.Formatter):
    """Renders `extra` as key=value; whatever is not a plain word is quoted as JSON does, so that no value can
    forge a line."""

    def format(self, record: logging.LogRecord) -> str:
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        parts = [f"{seconds}.{int(record.msecs):03}Z", record.levelname, record.getMessage()]
        for key, value in vars(record).items():
            if key not in _STANDARD and value is not None and value != "":
                text = str(value)
                parts.append(f"{key}={text if _PLAIN.fullmatch(text) else json.dumps(text)}")
        line = " ".join(parts)
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


def log_to(stream: TextIO = sys.stderr, level: int = logging.INFO) -> None:
    """Send the log of overlayd to this stream."""
    stderr = logging.StreamHandler(stream)
    stderr.setFormatter(FieldFormatter())
    root = logging.getLogger("overlayd")
    root.handlers[:] = [stderr]
    root.setLevel(level)
    root.propagate = False


def log_events(events: Iterable[LogEvent]) -> None:
    """Write what the core found worth a line."""
    for event in events:
        level = logging.WARNING if event.is_warning else logging.INFO
        logging.getLogger("overlayd.daemon").log(level, event.text, extra=dict(event.fields))
