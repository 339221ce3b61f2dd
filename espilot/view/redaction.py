"""Secrets in a text, replaced: what a person may hand to others.

Rather too much than too little is replaced. What is known to be secret goes first, literally; then
what looks like a secret by its form (keys, tokens, PEM blocks), by its name (`PASSWORD=...`), or by
its place (in a URL, in a header).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

MARK = "[removed]"
SHORTEST_KNOWN = 6
"""A known secret that is shorter would take half of the text with it."""

_WORDS = (
    "pass|passwd|password|passphrase|passcode|pwd|secrets?|token|jwt|bearer|macaroon|nonce|otp|pin"
    "|auth|authz|authn|authorization|credentials?|cookie|session|session[-_]?id|oidc|myproxy"
    "|signature|sig|x-amz-[a-z-]{1,40}|awsaccesskeyid"
    "|(?:api|access|account|private|encryption|signing|client|secret)[-_]?key(?:[-_]?id)?"
)
_ENDS = "password|passwd|passphrase|secrets?|tokens?|apikey|secretkey|accesskey|pwd"
_NAME = rf"(?:[A-Za-z0-9_.-]{{0,60}}[-_.])?(?:[A-Za-z0-9]{{0,40}}(?:{_ENDS})|{_WORDS})"
"""A name that says secret, with what may stand before it. All lengths are bounded: what a payload
prints must not cost hours."""
_HARMLESS = re.compile(r"[-_.](?:file|path|dir|url|type|origin|name)$", re.I)
_PEM = re.compile(r"-----BEGIN [A-Z0-9 ]{1,60}-----.*?(?:-----END [A-Z0-9 ]{1,60}-----|\Z)", re.S)
_PEM_REST = re.compile(r"\A(?:(?!-----BEGIN ).)*?-----END [A-Z0-9 ]{1,60}-----", re.S)
"""The end of a block whose beginning was cut off."""
_HEADER = re.compile(
    r"((?:proxy-)?authorization|(?:set-)?cookie|x-[a-z0-9-]{0,40}(?:token|secret|key)[a-z0-9-]{0,40})"
    r"(\\*[\"']?\s{0,9}:\s{0,9})[^\r\n]+",
    re.I,
)
_SCHEME = r"\b([A-Za-z][A-Za-z0-9+.-]{0,30}://"
_URL_USER = re.compile(rf"{_SCHEME})[^\s/\"'<>]{{1,2048}}@")
_URL_QUERY = re.compile(rf"{_SCHEME}[^\s?#\"'<>]{{1,1024}})\?[^\s\"'<>]+")
_START = r"(?<![A-Za-z0-9])"
_IS = r"\\*[\"']?\s{0,9}(?:=>|[:=]|%3[Dd])\s{0,9}"
_QUOTED = re.compile(rf"{_START}({_NAME})({_IS})(\\*[\"'])(.{{0,8192}}?)\3", re.I)
_PLAIN = re.compile(rf"{_START}({_NAME})({_IS})([^\s\"',;&}})\]\\]+)", re.I)
_OPTION = re.compile(
    rf"((?:^|[\s\"'])--?{_NAME})([\"']?,?\s{{1,9}}[\"']?)([^\s\"'-][^\s\"',]*)", re.I | re.M
)
_NETRC = re.compile(r"\b(login|password|passwd|passphrase)([ \t]{1,9})(\S+)", re.I)
_MIXED = r"(?=\S{0,200}[a-z])(?=\S{0,200}[A-Z])(?=\S{0,200}\d)"
_LOOKS = (
    re.compile(r"\b(?i:bearer|negotiate)\s{1,9}[^\s\"',]{8,}"),
    re.compile(r"\b(?i:basic)\s{1,9}(?=[a-z+/]{0,200}[A-Z0-9=])[A-Za-z0-9+/]{8,}={0,2}"),
    re.compile(r"\beyJ[A-Za-z0-9_-]{5,}(?:\.[A-Za-z0-9_-]+){1,4}"),
    re.compile(r"\b(?:AKIA|ASIA|AROA|AIDA)[A-Z0-9]{12,}"),
    re.compile(
        r"\b(?:gh[pousr]_|github_pat_|glpat-|xox[abeprs]-|hvs\.|ya29\.|AIza|sk-|pypi-)"
        r"[A-Za-z0-9_.-]{10,}"
    ),
    re.compile(r"\bMDA[A-Za-z0-9_-]{50,}"),
    # An AWS secret key alone, and long blobs.
    re.compile(rf"(?<![\w+/=-]){_MIXED}[A-Za-z0-9+][A-Za-z0-9+/]{{39}}(?![\w+/-])"),
    re.compile(rf"(?<![\w+/=-]){_MIXED}[A-Za-z0-9+/_=-]{{120,}}"),
)
"""Tokens and keys by their form."""
_HINTS = re.compile(
    rf"{_ENDS}|authorization|cookie|x-[a-z0-9-]{{0,40}}key|(?<![a-z0-9])(?:{_WORDS}|login)"
)
"""What lower-case text has somewhere if it has a secret by name or place. Most text has not, and
this is a hundred times cheaper to find out."""
_FORM_HINTS = re.compile(
    r"bearer|negotiate|basic|eyJ|A(?:KIA|SIA|ROA|IDA)|gh[pousr]_|github_pat_|glpat-|xox|hvs\.|ya29"
    r"|AIza|sk-|pypi-|MDA|[A-Za-z0-9+/_=-]{40}",
    re.I,
)
"""The same for secrets by their form."""


def redact(text: str, known: Iterable[str] = ()) -> str:
    """The text without secrets; `known` are some that are to be found wherever they stand."""
    for secret in sorted(set(known), key=len, reverse=True):
        if len(secret) >= SHORTEST_KNOWN:
            text = text.replace(secret, MARK)
    if "-----" in text:
        text = _PEM.sub(MARK, _PEM_REST.sub(MARK, text))
    named = _HINTS.search(text.lower()) is not None
    if named:
        text = _HEADER.sub(rf"\1\2{MARK}", text)
    text = _redact_urls(text)
    if named:
        text = _redact_named(text)
    if _FORM_HINTS.search(text):
        for form in _LOOKS:
            text = form.sub(MARK, text)
    return text


def _redact_urls(text: str) -> str:
    """Without what is before an @ in a URL, or behind a question mark."""
    if "://" in text and ("@" in text or "?" in text):
        text = _URL_USER.sub(rf"\1{MARK}@", text)
        text = _URL_QUERY.sub(rf"\1?{MARK}", text)
    return text


def _redact_named(text: str) -> str:
    """Without values of names that say secret."""
    text = _QUOTED.sub(_without_quoted, text)
    text = _PLAIN.sub(_without_value, text)
    text = _OPTION.sub(rf"\1\2{MARK}", text)
    return _NETRC.sub(rf"\1\2{MARK}", text)


def redact_document(value: Any) -> Any:
    """A JSON value without what secret names hold, be it text, a list or an object."""
    if isinstance(value, dict):
        return {
            key: MARK if each and is_secret_name(str(key)) else redact_document(each)
            for key, each in value.items()
        }
    return [redact_document(each) for each in value] if isinstance(value, list) else value


def is_secret_name(name: str) -> bool:
    """Whether a variable or setting of this name holds a secret."""
    return re.fullmatch(_NAME, name, re.I) is not None and not _HARMLESS.search(name)


def _without_quoted(match: re.Match[str]) -> str:
    name, between, quote, value = match.groups()
    if _HARMLESS.search(name) or not value:
        return match[0]
    return f"{name}{between}{quote}{MARK}{quote}"


def _without_value(match: re.Match[str]) -> str:
    name, between, value = match.groups()
    if _HARMLESS.search(name) or value.startswith(MARK[:-1]):
        return match[0]
    return f"{name}{between}{MARK}"
