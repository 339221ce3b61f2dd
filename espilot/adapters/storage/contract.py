"""What a storage element must do, as checks that run against any of them.

For the author of a plug-in, in a test of his own:

    @pytest.mark.parametrize("check", contract.CHECKS, ids=lambda check: check.__name__)
    def test_contract(check, tmp_path):
        check(contract.Subject(MyStorage(...), tmp_path))

Each check gets an empty storage (`storage_id` 7), and an empty directory of this machine; it raises
AssertionError with a sentence. `listing` shows what others see: the names, with their content.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from espilot.errors import EspilotError, StorageFatal, StorageRetryable
from espilot.ports import Storage

NAME = "a b;c+d%20é.tar"
BAD_NAMES = ("", ".", "..", "a/b", "../up", "/abs", "a\nb", "a\0b", ".hidden", "x" * 300)


@dataclass(frozen=True, slots=True)
class Subject:
    """An empty storage under test, a directory for local files, and a look at it from outside."""

    storage: Storage
    directory: Path
    listing: Callable[[], Mapping[str, bytes]] | None = None
    content: bytes = bytes(range(256)) * 40_000
    name: str = NAME
    """A name that is as difficult as this storage can stand."""

    def write(self, content: bytes, name: str = "local.tar") -> Path:
        """Make a local file."""
        path = self.directory / name
        path.write_bytes(content)
        return path

    def put(self, content: bytes, name: str = "") -> None:
        """Put this content under this name."""
        self.storage.put(
            self.write(content),
            name or self.name,
            size_bytes=len(content),
            adler32=adler32_of(content),
            crc32=crc32_of(content),
        )

    def get(self, content: bytes, name: str = "") -> bytes:
        """Get the name, which must have this content."""
        target, name = self.directory / "got", name or self.name
        self.storage.get(name, target, size_bytes=len(content), adler32=adler32_of(content))
        return target.read_bytes()

    def require_listing(self, wanted: Mapping[str, bytes], when: str) -> None:
        """Require that others see exactly this."""
        if self.listing is not None:
            seen = self.listing()
            require(sorted(seen) == sorted(wanted), f"{when}: there is {sorted(seen)}")
            require(dict(seen) == dict(wanted), f"{when}: the content differs")


def adler32_of(data: bytes) -> str:
    """The checksum as reports have it."""
    return f"{zlib.adler32(data):08x}"


def crc32_of(data: bytes) -> str:
    """The checksum that spares a storage from reading before it sends."""
    return f"{zlib.crc32(data):08x}"


def require(condition: bool, text: str) -> None:
    """Fail with this sentence unless the condition holds."""
    if not condition:
        raise AssertionError(text)


def require_error(kind: type[EspilotError], call: Callable[[], object], what: str) -> EspilotError:
    """Require that the call raises this error with one clear line."""
    try:
        call()
    except kind as error:
        require("\n" not in str(error), f"{what}: the error has several lines")
        return error
    raise AssertionError(f"{what}: no {kind.__name__}")


def check_identity(subject: Subject) -> None:
    """A storage tells its address and its endpoint id."""
    require(subject.storage.storage_id == 7, "the storage id is another")
    require(":" in subject.storage.url, "the address is no URL")
    require("@" not in subject.storage.url, "the address may hold a secret")
    require(":" in subject.storage.url_of("x.tar"), "the address of a file is no URL")


def check_put_then_there(subject: Subject) -> None:
    """After put the file is there with its bytes, and nothing else is; the source stays."""
    subject.put(subject.content)
    subject.require_listing({subject.name: subject.content}, "after put")
    require(subject.get(subject.content) == subject.content, "get gives other bytes")
    require((subject.directory / "local.tar").read_bytes() == subject.content, "source changed")
    require(
        sorted(p.name for p in subject.directory.iterdir()) == ["got", "local.tar"],
        "get left something beside its file",
    )


def check_put_again_overwrites(subject: Subject) -> None:
    """A repeated put of the same name overwrites itself: a retry does no harm."""
    subject.put(subject.content)
    subject.put(subject.content)
    subject.put(b"new")
    subject.require_listing({subject.name: b"new"}, "after a second put")
    require(subject.get(b"new") == b"new", "the old content is still there")


def check_small_files(subject: Subject) -> None:
    """A file of one byte is as good as any."""
    subject.put(b"x", "one.tar")
    require(subject.get(b"x", "one.tar") == b"x", "a file of one byte is not what it was")


def check_difference_is_found(subject: Subject) -> None:
    """A file that is not what it should be is never visible, and may be tried again."""
    content = subject.content
    source = subject.write(content)
    for size_bytes, adler32 in (
        (len(content) + 1, adler32_of(content)),
        (len(content) - 1, adler32_of(content)),
        (len(content), "00000001"),
    ):
        require_error(
            StorageRetryable,
            lambda size_bytes=size_bytes, adler32=adler32: subject.storage.put(  # type: ignore[misc]
                source, "x.tar", size_bytes=size_bytes, adler32=adler32
            ),
            "a source that differs",
        )
        subject.require_listing({}, "after a refused put")


def check_failed_put_keeps_the_old_file(subject: Subject) -> None:
    """A failed overwrite leaves what was there before."""
    subject.put(subject.content, "x.tar")
    source = subject.write(b"other")
    require_error(
        StorageRetryable,
        lambda: subject.storage.put(
            source, "x.tar", size_bytes=5, adler32="00000001", crc32=crc32_of(b"other")
        ),
        "a source that differs",
    )
    subject.require_listing({"x.tar": subject.content}, "after a failed overwrite")
    require(subject.get(subject.content, "x.tar") == subject.content, "the old file is gone")


def check_missing_source(subject: Subject) -> None:
    """A source that is gone is no reason to repeat the transfer."""
    gone = subject.directory / "gone"
    require_error(
        StorageFatal,
        lambda: subject.storage.put(gone, "x.tar", size_bytes=1, adler32="00000001"),
        "a missing source",
    )
    subject.require_listing({}, "after a put of nothing")


def check_verify(subject: Subject) -> None:
    """Verify knows a file that is there from one that differs or is missing."""
    content = subject.content
    subject.put(content, "x.tar")
    subject.storage.verify("x.tar", size_bytes=len(content), adler32=adler32_of(content))
    for name, size_bytes, adler32 in (
        ("x.tar", len(content), "00000001"),
        ("x.tar", len(content) + 1, adler32_of(content)),
        ("other.tar", len(content), adler32_of(content)),
    ):
        require_error(
            StorageRetryable,
            lambda name=name, size=size_bytes, adler=adler32: subject.storage.verify(  # type: ignore[misc]
                name, size_bytes=size, adler32=adler
            ),
            f"verify of {name}",
        )


def check_get_finds_a_difference(subject: Subject) -> None:
    """A download that is not what it should be, or does not exist, leaves no file."""
    content = subject.content
    subject.put(content, "x.tar")
    target = subject.directory / "got"
    for name, adler32 in (("x.tar", "00000001"), ("missing.tar", adler32_of(content))):
        require_error(
            EspilotError,
            lambda name=name, adler=adler32: subject.storage.get(  # type: ignore[misc]
                name, target, size_bytes=len(content), adler32=adler
            ),
            f"get of {name}",
        )
        left = sorted(path.name for path in subject.directory.iterdir())
        require(left == ["local.tar"], f"get of {name} left {left}")


def check_delete(subject: Subject) -> None:
    """Delete removes; deleting what is missing is no error, even from a storage never used."""
    subject.storage.delete("x.tar")
    subject.put(subject.content, "x.tar")
    subject.storage.delete("x.tar")
    subject.storage.delete("x.tar")
    subject.require_listing({}, "after delete")
    facts = len(subject.content), adler32_of(subject.content)
    require_error(
        StorageRetryable,
        lambda: subject.storage.verify("x.tar", size_bytes=facts[0], adler32=facts[1]),
        "verify after delete",
    )


def check_bad_names(subject: Subject) -> None:
    """A name that is not flat is refused for good, before anything is written."""
    source = subject.write(b"x")
    for name in BAD_NAMES:
        for call in (
            lambda name=name: subject.storage.put(
                source, name, size_bytes=1, adler32=adler32_of(b"x")
            ),
            lambda name=name: subject.storage.delete(name),
            lambda name=name: subject.storage.url_of(name),
        ):
            require_error(StorageFatal, call, f"the name {name!a:.20}")
    subject.require_listing({}, "after bad names")


def check_use_after_close(subject: Subject) -> None:
    """A storage that was closed opens its connections again."""
    subject.put(b"before", "x.tar")
    subject.storage.close()
    require(subject.get(b"before", "x.tar") == b"before", "no use after close")


CHECKS: tuple[Callable[[Subject], None], ...] = (
    check_identity,
    check_put_then_there,
    check_put_again_overwrites,
    check_small_files,
    check_difference_is_found,
    check_failed_put_keeps_the_old_file,
    check_missing_source,
    check_verify,
    check_get_finds_a_difference,
    check_delete,
    check_bad_names,
    check_use_after_close,
)
