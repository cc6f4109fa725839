"""Taking secrets out of text that is meant for strangers: a bug report.

What is taken out is told by its form, not by where it comes from: private keys, user and password in a URL, and
the value behind any name that says it is a secret.  Everything else stays as it is, byte for byte.
"""

from __future__ import annotations

import re

GONE = "[redacted]"

_SECRET = r"(?:pass(?:word|wd|phrase)?|secret|token|credentials?|psk|api[-_]?key|private[-_]?key)"
_PEM = re.compile(r"-----BEGIN ([A-Z ]*PRIVATE KEY)-----.*?(?:-----END \1-----|\Z)", re.DOTALL)
"""RFC 7468; one that was cut off hides everything to the end."""
_URL = re.compile(r"(?<=://)[^/\s@\"']+(?=@)")
"""RFC 3986 section 3.2.1: userinfo."""
_BEARER = re.compile(r"(?i)(?<=\bbearer )[\w.~+/=-]+|(?<=\bbasic )[\w+/=-]{8,}")
"""RFC 6750, RFC 7617."""
_NAMED = re.compile(
    rf"""(?ix) ( ["']? \b [\w.-]* {_SECRET} ["']? \s* [=:] \s* ) ( "(?:[^"\\]|\\.)*" | '[^']*' | [^\s,;]+ )"""
)
"""`name=value`, `name: value`, `"name": "value"`; a name that ends otherwise, as `password_file`, is no secret."""


def redact(text: str) -> str:
    """Return the text without its secrets.  Redacting twice is redacting once."""
    text = _PEM.sub(rf"-----BEGIN \1-----{GONE}", text)
    text = _URL.sub(GONE, text)
    text = _BEARER.sub(GONE, text)
    return _NAMED.sub(rf"\1{GONE}", text)
