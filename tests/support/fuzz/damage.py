"""Damages texts as faulty senders and attackers do."""

import random
from collections.abc import Sequence

# Texts with a special meaning for parsers.
PIECES = (
    *(b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b";", b"\t", b"\n", b"\r", b"\r\n", b"\0"),
    *(b"\xef\xbb\xbf", b"\xff\xfe", b"\xff", b"\xc3\x28", "\u00fc".encode(), b"\\ud800", b"\x1a"),
    *(b"null", b"true", b"NaN", b"-Infinity", b"1e309", b"-0", b"1e-400", b"9" * 40, b"0x1", b"=1"),
    *(b"../", b"%00", b"%0d%0a", b"__class__", b"' OR 1=1 --", b"<script>", b"A" * 300, b"[" * 200),
)


def damaged(
    rng: random.Random, text: bytes, most: int = 4, pieces: Sequence[bytes] = PIECES
) -> bytes:
    """Replaces, inserts, doubles or cuts off up to `most` parts of the text."""
    content = bytearray(text)
    for _ in range(rng.randint(0, most)):
        start = rng.randint(0, len(content))
        end = start + rng.choice((0, 0, 1, 2, 8, 60))
        kind = rng.random()
        if kind < 0.5:
            content[start:end] = rng.choice(pieces)
        elif kind < 0.75:
            content[start:end] = rng.randbytes(rng.randint(0, 4))
        elif kind < 0.95:
            content[start:end] = content[start:end] * 2
        else:
            del content[start:]
    return bytes(content)


def pieces(rng: random.Random, text: bytes) -> Sequence[bytes]:
    """Cuts the text into pieces at random places."""
    cuts = sorted(rng.randint(0, len(text)) for _ in range(rng.randint(0, 5)))
    return [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
