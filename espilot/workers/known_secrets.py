"""Secrets that can be known, so that they are found wherever they stand: by the names of variables
in the environment, and by the files that the settings name."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from espilot.view.redaction import is_secret_name

_READ_BYTES = 2**18


def secrets_of(run: Mapping[str, Any], environ: Mapping[str, str]) -> set[str]:
    """Secrets that can be known: by name in the environment, and in the files of the settings."""
    known = {
        value for name, value in environ.items() if is_secret_name(name) and "/" not in value[:1]
    }
    known |= {environ.get(name, "") for name in _named_variables(run)}
    for path in _credential_files(run, environ):
        for line in _read(path).splitlines():
            known |= {line.strip(), line.partition("=")[2].strip(" \"'")}
    return {each for each in known if not each.startswith(("[", "-----"))}


def _named_variables(run: Mapping[str, Any]) -> Iterator[str]:
    """Variables that the settings name as credentials, whatever they are called."""
    settings = run.get("settings")
    endpoints = settings.get("endpoints") if isinstance(settings, dict) else None
    for each in endpoints.values() if isinstance(endpoints, dict) else ():
        text = each.get("credentials") if isinstance(each, dict) else None
        if isinstance(text, str) and text.startswith("env:"):
            yield from (name.strip() for name in text.removeprefix("env:").split(","))


def _credential_files(run: Mapping[str, Any], environ: Mapping[str, str]) -> Iterator[Path]:
    settings = run.get("settings")
    settings = settings if isinstance(settings, dict) else {}
    server, endpoints = settings.get("server"), settings.get("endpoints")
    names = [server.get("token_file"), server.get("x509_proxy")] if isinstance(server, dict) else []
    if isinstance(endpoints, dict):
        names += [each.get("credentials") for each in endpoints.values() if isinstance(each, dict)]
    names += [environ.get("X509_USER_PROXY"), environ.get("OIDC_AUTH_TOKEN")]
    jobdir = Path(str(run.get("jobdir") or "/"))
    for name in names:
        if isinstance(name, str) and name and not name.startswith("env:") and "\0" not in name:
            yield jobdir / name


def _read(path: Path) -> str:
    """The beginning of a regular file; nothing when it is none or cannot be read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    with open(fd, "rb") as file:  # noqa: PTH123
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return ""
        return file.read(_READ_BYTES).decode("utf-8", "replace")
