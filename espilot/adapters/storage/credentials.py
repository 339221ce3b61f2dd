"""Credentials, read where they lie each time they are wanted, so that renewed ones count at once.

They stay in memory: no text of an error, no command line and no environment ever holds one.
"""

from __future__ import annotations

import configparser
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from espilot.errors import ConfigError, StorageFatal

INSTANCE = "instance"
_VARIABLES = "env:"
_LARGEST_FILE_BYTES = 2**20
_ADDRESS = re.compile(r"https?://[A-Za-z0-9.:\[\]-]+/?")


@dataclass(frozen=True, slots=True)
class Keys:
    """A key pair of an object store, maybe for a limited time."""

    access: str = field(repr=False)
    secret: str = field(repr=False)
    token: str | None = field(repr=False, default=None)


def is_instance(text: str) -> bool:
    """Whether the rights of the machine are meant, wherever they are asked for."""
    return text == INSTANCE or text.startswith(f"{INSTANCE}:")


def metadata_url(text: str) -> str:
    """The address at which the machine asks for its rights; empty for the usual one."""
    return text.partition(":")[2]


def is_place(text: str) -> bool:
    """Whether a setting names a file, and not another source of credentials."""
    return bool(text) and not is_instance(text) and not text.startswith(_VARIABLES)


def check_credentials(text: str) -> None:
    """Refuse a setting that can never give credentials."""
    if is_instance(text) and text != INSTANCE and not _ADDRESS.fullmatch(metadata_url(text)):
        raise ConfigError("credentials: write instance or instance:http://HOST:PORT")
    if text.startswith(_VARIABLES) and not 2 <= len(_variables(text)) <= 3:
        raise ConfigError("credentials: write env:ACCESS,SECRET or env:ACCESS,SECRET,TOKEN")
    if "\n" in text or "\0" in text:
        raise ConfigError("credentials: name a file that holds them; they must not be written here")


def read_keys(text: str, profile: str) -> Keys | None:
    """Give the keys that a setting names; None for none and for the rights of the machine."""
    if not text or is_instance(text):
        return None
    if text.startswith(_VARIABLES):
        return _keys_of_variables(_variables(text))
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(read_secret_file(text))
        section = parser[profile]
        return Keys(
            section["aws_access_key_id"],
            section["aws_secret_access_key"],
            section.get("aws_session_token"),
        )
    except (configparser.Error, KeyError):
        # The text of the parser's error would repeat a line of the file.
        raise StorageFatal(
            f"credentials: {text} needs a section [{profile}] with aws_access_key_id and "
            "aws_secret_access_key"
        ) from None


def read_secret_file(path: str) -> str:
    """Read a small file that only its owner may read."""
    try:
        with Path(path).open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(_LARGEST_FILE_BYTES)
    except OSError as error:
        raise StorageFatal(f"credentials: cannot read {path}: {error.strerror}") from error
    if mode & 0o077:
        raise StorageFatal(f"credentials: {path} may be read by others; chmod 600 {path}")
    try:
        # With or without the mark that some editors put first.
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise StorageFatal(f"credentials: {path} is not a text file") from None


def token_header(secret: str, path: str) -> str:
    """The value of `Authorization` for the token in that file."""
    token = secret.strip()
    if not token.isascii() or not token.isprintable():
        raise StorageFatal(
            f"credentials: {path} holds no usable token: it must be one line of plain characters"
        )
    return f"Bearer {token}"


def is_certificate(text: str) -> bool:
    """Whether the file's content is a certificate and not a token."""
    return "-----BEGIN" in text


def _variables(text: str) -> list[str]:
    return [name.strip() for name in text.removeprefix(_VARIABLES).split(",") if name.strip()]


def _keys_of_variables(names: list[str]) -> Keys:
    values = [os.environ.get(name, "") for name in names]
    missing = [name for name, value in zip(names, values, strict=True) if not value]
    if missing:
        raise StorageFatal(f"credentials: the environment has no {', '.join(missing)}")
    return Keys(*values)
