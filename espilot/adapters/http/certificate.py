"""The end of a certificate's validity, read from its DER encoding (RFC 5280, section 4.1)."""

from __future__ import annotations

import base64
import binascii
import calendar
from collections.abc import Iterator

_BEGIN, _END = b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----"
_SEQUENCE, _VERSION, _UTC_TIME = 0x30, 0xA0, 0x17
_FIELDS_BEFORE_VALIDITY = 3
"""Serial number, signature algorithm, issuer."""


def read_expiry(pem: bytes) -> float | None:
    """Unix time of the end of the first certificate in a PEM file; None when it is none."""
    _, found, rest = pem.partition(_BEGIN)
    body, ended, _ = rest.partition(_END)
    if not found or not ended:
        return None
    try:
        return _not_after(base64.b64decode(body, validate=False))
    except (ValueError, IndexError, StopIteration, binascii.Error):
        return None


def _not_after(der: bytes) -> float:
    _, certificate = next(_elements(der))
    _, to_be_signed = next(_elements(certificate))
    fields = [each for each in _elements(to_be_signed) if each[0] != _VERSION]
    tag, validity = fields[_FIELDS_BEFORE_VALIDITY]
    if tag != _SEQUENCE:
        raise ValueError("no validity")
    _, (kind, text) = list(_elements(validity))
    digits = text.decode("ascii").removesuffix("Z")
    if kind == _UTC_TIME:
        # Two digits of the year: 50 and above are of the last century.
        digits = ("19" if int(digits[:2]) >= 50 else "20") + digits
    year, rest = int(digits[:4]), digits[4:]
    return float(calendar.timegm((year, *(int(rest[at : at + 2]) for at in range(0, 10, 2)))))


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Tag and content of each element; ValueError when one is longer than there is data."""
    at = 0
    while at < len(data):
        tag, length, at = data[at], data[at + 1], at + 2
        if length & 0x80:
            n = length & 0x7F
            length, at = int.from_bytes(data[at : at + n], "big"), at + n
        if at + length > len(data):
            raise ValueError("cut off")
        yield tag, data[at : at + length]
        at += length
