"""Reading the parameters of a request: JSON body, form or query, then the declared types."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

from espilot.wire.panda_v1 import Call, Kind, Parameter, fits

INFLATED_LIMIT_BYTES = 256 * 2**20
_QUERY_DEFAULT = "None"


class BadRequest(Exception):
    """A request that a real server answers with success false; the text is its message."""


class BrokenRequest(Exception):
    """A request that ends in HTTP 500 at a real server; the text is the body."""


class KillingRequest(Exception):
    """A request that a real server's process does not survive."""


def read_json(body: bytes, *, is_zipped: bool) -> dict[str, Any]:
    """Parameters of a JSON body."""
    if is_zipped:
        body = _inflate(body)
    try:
        values = json.loads(body or b"{}")
    except (ValueError, RecursionError) as error:
        raise BrokenRequest(f"ERROR : received invalid JSON : {str(error)[:200]}") from error
    if not isinstance(values, dict):
        raise BrokenRequest("ERROR : received invalid JSON : not an object")
    return values


def _inflate(body: bytes) -> bytes:
    inflater = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        inflated = inflater.decompress(body, INFLATED_LIMIT_BYTES)
    except zlib.error as error:
        raise KillingRequest(f"not a gzipped file: {error}") from error
    if not inflater.eof:
        raise KillingRequest(str(gzip.BadGzipFile("the gzip stream is cut off or too large")))
    return inflated


def read_form(body: bytes) -> dict[str, Any]:
    """Parameters of a form: all values stay strings, what has no value is dropped."""
    text = body.decode("utf-8", "replace")
    try:
        pairs = parse_qs(text, max_num_fields=1000)
    except ValueError as error:
        raise BrokenRequest(str(error)) from error
    return {name: values[-1] for name, values in pairs.items()}


def read_query(call: Call, query: Mapping[str, list[str]]) -> dict[str, Any]:
    """Parameters of a GET: values are cast to the declared type, "None" means the default."""
    values: dict[str, Any] = {}
    for name, texts in query.items():
        parameter = call.parameters.get(name)
        if texts == [_QUERY_DEFAULT] and parameter is not None:
            values[name] = parameter.default
        else:
            values[name] = _cast(name, parameter, texts)
    return values


def _cast(name: str, parameter: Parameter | None, texts: list[str]) -> Any:
    kind = parameter.kind if parameter is not None else Kind.STR
    try:
        if kind is Kind.INT_LIST:
            return [int(text) for text in texts]
        return int(texts[-1]) if kind is Kind.INT else texts[-1]
    except ValueError as error:
        raise BadRequest(
            f"Type error: '{name}' with value {str(texts)[:100]} should be int"
        ) from error


def check(
    call: Call, values: Mapping[str, Any], *, strict: bool, storage_id_breaks: bool = True
) -> dict[str, Any]:
    """All parameters of a call, defaults filled in.

    Errors: `BadRequest` for unknown, missing or mistyped ones; the default is always accepted.
    """
    for name in values:
        if name not in call.parameters:
            raise BadRequest(f"Argument error: got an unexpected keyword argument '{name}'")
    complete: dict[str, Any] = {}
    for name, parameter in call.parameters.items():
        if name not in values and parameter.required:
            raise BadRequest(f"Argument error: missing a required argument: '{name}'")
        value = values.get(name, parameter.default)
        complete[name] = value
        if parameter.kind is Kind.BROKEN and not storage_id_breaks:
            continue
        if parameter.required or not _is_default(parameter, value):
            _check_type(name, parameter, value, strict=strict)
    return complete


def _is_default(parameter: Parameter, value: Any) -> bool:
    return type(value) is type(parameter.default) and bool(value == parameter.default)


def _check_type(name: str, parameter: Parameter, value: Any, *, strict: bool) -> None:
    kind = parameter.kind
    if kind is Kind.BROKEN or (kind is Kind.NUMBER and isinstance(value, str)):
        raise BrokenRequest("isinstance() arg 2 must be a type, a tuple of types, or a union")
    storable = not isinstance(value, str) or not any("\ud800" <= c <= "\udfff" for c in value)
    lenient = not strict and kind in (Kind.FLOAT, Kind.NUMBER) and fits(Kind.NUMBER, value)
    if not storable or not (fits(kind, value) or lenient):
        raise BadRequest(
            f"Type error: '{name}' with value {str(value)[:100]!a} should be {kind.value}"
        )
