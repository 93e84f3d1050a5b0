"""Determines a file's digest, encoding and size in one pass."""

import codecs
import hashlib
import logging
import time
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)

BLOCK = 8_000_000  # bytes read at a time
LONGEST_LINE = 64_000_000  # bytes of the longest accepted line
NAMED = 5  # maximum number of line numbers in a log message
FALLBACK = "hospital.windows-1252"
PACKED = {
    b"\x1f\x8b": "a gzip file",
    b"PK\x03\x04": "a zip archive or an Excel workbook",
    b"BZh": "a bzip2 file",
    b"\xfd7zXZ\0": "an xz file",
    b"\x28\xb5\x2f\xfd": "a zstd file",
    b"7z\xbc\xaf\x27\x1c": "a 7-Zip archive",
    b"\xd0\xcf\x11\xe0": "an Excel workbook",
    b"PAR1": "a Parquet file",
    b"SQLite format 3\0": "an SQLite database",
}


class InputError(Exception):
    """The whole file cannot be used. The text is one line that names the file."""


@dataclass(frozen=True)
class Contents:
    """A file's digest, encoding and size. lines: an upper bound of the number of lines."""

    size: int
    sha256: str
    encoding: str
    lines: int
    has_comma: bool
    has_quote: bool


def _windows_1252(error: UnicodeError) -> tuple[str, int]:
    """Decodes bytes that are not UTF-8 as Windows-1252."""
    assert isinstance(error, UnicodeDecodeError)
    return error.object[error.start : error.end].decode("cp1252", "replace"), error.end


codecs.register_error(FALLBACK, _windows_1252)


def examine(path: Path) -> Contents:
    """Determines a file's digest and encoding: UTF-8 or UTF-16, with or without BOM, or
    Windows-1252.

    Invalid bytes in a UTF-8 file are read as Windows-1252, and the numbers of the first lines with
    such bytes are logged. Raises InputError if the file cannot be read, is empty, or is of a type
    in PACKED. A file that is not UTF-16 must also have no line of more than LONGEST_LINE bytes.
    """
    digest = hashlib.sha256()
    encoding, size, lines, has_comma, has_quote = "", 0, 1, False, False
    check = _Utf8Check(path)
    progress = Progress(f"{path.name}: checking")
    try:
        with path.open("rb") as file:
            total = path.stat().st_size
            while block := file.read(BLOCK):
                if not encoding:
                    _reject_packed(path, block)
                    encoding = _by_first_bytes(block)
                digest.update(block)
                size += len(block)
                # One file may have line ends of several kinds.
                lines += block.count(b"\n") + block.count(b"\r")
                has_comma = has_comma or b"," in block
                has_quote = has_quote or b'"' in block
                if encoding.startswith("utf-8"):
                    check.add(block)
                progress.at(size, total)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}{_beside(path)}") from error
    if not size:
        raise InputError(f"{path} is empty: it has no header")
    if encoding.startswith("utf-8"):
        encoding = check.end(encoding)
    return Contents(size, digest.hexdigest(), encoding, lines, has_comma, has_quote)


def _reject_packed(path: Path, block: bytes) -> None:
    for magic, what in PACKED.items():
        if block.startswith(magic):
            raise InputError(f"{path} is {what}, not text: unpack it, or save it as CSV")


def _beside(path: Path) -> str:
    """Names the files that could be the missing file, compressed or in another spelling."""
    try:
        names = sorted(other.name for other in path.parent.iterdir())
    except OSError:
        return ""
    similar = [name for name in names if name.casefold().startswith(path.name.casefold())]
    return f"; there is {', '.join(similar)}" if similar and path.name not in names else ""


def _by_first_bytes(block: bytes) -> str:
    if block.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if block.startswith(codecs.BOM_UTF8):
        return "utf-8-sig"
    head = block[:64]  # the header is ASCII, so in UTF-16 every second byte is NUL
    if head[1::2].count(0) > len(head) / 4:
        return "utf-16-le"
    if head[0::2].count(0) > len(head) / 4:
        return "utf-16-be"
    return "utf-8"


class _Utf8Check:
    """Finds the lines of a file that are not UTF-8."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rest = b""
        self._line = 1
        self._bad = 0
        self._first: list[int] = []
        self._valid = False  # whether a line with non-ASCII characters was valid UTF-8

    def add(self, block: bytes) -> None:
        text = self._rest + block
        # A CR at the end may be the first half of CR LF.
        end = max(text.rfind(b"\n"), text.rfind(b"\r", 0, -1)) + 1
        self._rest = text[end:]
        if len(self._rest) > LONGEST_LINE:
            raise InputError(f"{self._path} has a line of more than {LONGEST_LINE:,} bytes")
        self._check(text[:end])

    def end(self, encoding: str) -> str:
        """Checks the last line; returns the encoding of the file."""
        self._check(self._rest)
        if not self._bad:
            return encoding
        if not self._valid and encoding == "utf-8":
            return "cp1252"
        lines = ", ".join(map(str, self._first)) + (", …" if self._bad > len(self._first) else "")
        log.warning(
            "%s: %d lines are not valid UTF-8; their invalid bytes are read as Windows-1252: %s",
            *(self._path.name, self._bad, lines),
        )
        return encoding

    def _check(self, text: bytes) -> None:
        if not text.isascii():
            try:
                text.decode()
                self._valid = True
            except UnicodeDecodeError:
                for number, line in enumerate(text.splitlines(), self._line):
                    self._check_line(number, line)
        self._line += text.count(b"\n")
        if b"\r" in text:
            self._line += text.count(b"\r") - text.count(b"\r\n")

    def _check_line(self, number: int, line: bytes) -> None:
        if line.isascii():
            return
        try:
            line.decode()
            self._valid = True
        except UnicodeDecodeError:
            self._bad += 1
            if len(self._first) < NAMED:
                self._first.append(number)


class Progress:
    """Logs progress every two seconds."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._next = time.monotonic() + 2

    def at(self, done: float, total: float) -> None:
        if time.monotonic() >= self._next:
            log.info("%s: %d %%", self._what, 100 * done / max(total, 1))
            self._next = time.monotonic() + 2
