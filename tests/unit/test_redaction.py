"""Secrets in a text are replaced, and what helps support stays."""

from __future__ import annotations

import pytest

from espilot.view.redaction import MARK, is_secret_name, redact

SECRET = "Zq8vT1nWpX4s"
JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJlc3BpbG90In0.c2lnbmF0dXJl-Zq8vT1nWpX4s"
AWS = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYZq8vT1nWpX"


@pytest.mark.parametrize(
    "text",
    [
        f"PASSWORD={SECRET}",
        f"export DB_PASSWORD='{SECRET}'",
        f"declare -x AWS_SECRET_ACCESS_KEY=\"{SECRET}\"",
        f"PGPASSWORD={SECRET}\n",
        f"MYSQL_PWD={SECRET}",
        f"PANDA_AUTH_TOKEN={SECRET}",
        f"{{'S3_SECRET_KEY': '{SECRET}', 'A': 1}}",
        f'{{"secret_key": "{SECRET}"}}',
        f'"{{\\"token\\": \\"{SECRET}\\"}}"',
        f"password: {SECRET}",
        f'passphrase = "two words {SECRET}"',
        f"pandaProxySecretKey={SECRET}",
        f"Authorization: Basic {SECRET}aGVsbG8=",
        f"authorization: AWS4-HMAC-SHA256 Credential={SECRET}/x, Signature={SECRET}",
        f"> Cookie: a=b; session={SECRET}",
        f"X-Amz-Security-Token: {SECRET}",
        f"X-Auth-Token: {SECRET}",
        f"sent Bearer {SECRET}",
        f"https://me:{SECRET}@store.example/bucket",
        f"proxy http://{SECRET}@proxy.example:3128",
        f"davs://u:p@ss{SECRET}@host/x",
        f"https://s3.example/b/o?X-Amz-Algorithm=A&X-Amz-Signature={SECRET}&x=1",
        f"root://se.example//x?authz={SECRET}",
        f"GET /b/o?Signature={SECRET}&Expires=1 HTTP/1.1",
        f"./payload --token {SECRET} -v",
        f"['./payload', '--password', '{SECRET}']",
        f"--api-key={SECRET}",
        f"machine host login me password {SECRET}",
        f"jwt {JWT}",
        f"found AKIAIOSFODNN7{SECRET.upper()}",
        f"aws key {AWS}.",
        f"ghp_16C7e42F292c69{SECRET}",
        f"glpat-{SECRET}",
        "MDAxY2xvY2F0aW9u" + "aB3" * 20 + SECRET,
        f"-----BEGIN RSA PRIVATE KEY-----\nMIIE{SECRET}\n{SECRET}\n-----END RSA PRIVATE KEY-----",
        f"-----BEGIN CERTIFICATE-----\\nMIIE{SECRET}\\n-----END CERTIFICATE-----",
        f"-----BEGIN PRIVATE KEY-----\nMIIE{SECRET}",
        f"{SECRET}\n{SECRET}==\n-----END PRIVATE KEY-----\n",
        "blob " + "aB3x" * 40 + SECRET,
    ],
)  # fmt: skip
def test_secret_is_removed(text: str) -> None:
    """A secret is found by its name, its form or its place, in all spellings of logs and files."""
    for sample in (text, f"before {text} after", f"2026-11-22T10:00:00Z info x[1] {text}"):
        found = redact(sample)
        for secret in (SECRET, SECRET.upper(), JWT, AWS):
            assert secret not in found
        assert MARK in found


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-22T10:00:00.123Z info dispatcher[4711] job=99 action=bind opened the channel",
        "range 1-1795320398-1795320397-22-3 adler32=0a1b2c3d size_bytes=123456789",
        "server.token_file = /etc/espilot/token",
        "X509_USER_PROXY=/tmp/x509up_u1000",
        "https://panda.example:25443/server/panda",
        "EventService_EventRanges-0123456789abcdef0123456789abcdef",
        "/scratch/me/espilot-work/payload-1/output.1-1795320398-1795320397-22-3",
        "Basic authentication needed; password required. The key is missing: keys=3 monkey=4",
        "secret: ",
        "file AOD.12345._000001.pool.root.1 of scope mc20_13TeV",
    ],
)
def test_what_helps_stays(text: str) -> None:
    """Ranges, times, checksums, paths and addresses are not touched."""
    kept = redact(text)
    assert kept.replace(f"password {MARK}", "password required.") == text


def test_known_secrets_go_wherever_they_stand() -> None:
    """A secret that is known needs neither name nor form; a short one is left to the rules."""
    assert redact("the word hunter22 in hunter222", ["hunter22", "the"]) == (
        f"the word {MARK} in {MARK}2"
    )


def test_hostile_text_costs_no_more_than_its_length() -> None:
    """No rule looks at a long line again and again: it passes in a moment."""
    for unit in ("a_", "a", "x=", "a://", "eyJaaaaaa.", "--a ", "token", "'", "aB3", "-----BEGIN "):
        redact(unit * (30_000 // len(unit)))


def test_names() -> None:
    """Variables are secret by their names; those that hold a path are not."""
    secret = ("PANDA_AUTH_TOKEN", "S3_SECRET_KEY", "AWS_SESSION_TOKEN", "PGPASSWORD", "API_KEY")
    assert all(map(is_secret_name, secret))
    assert not any(map(is_secret_name, ("PATH", "X509_USER_PROXY", "TOKEN_FILE", "KEYBOARD")))
