"""Measures how fast raw bytes go over loopback, which is the limit of a stream.

`python -m benchmarks.loopback FILE TIMES` listens on a free port, which it prints, and sends the
file TIMES times to its first client.
"""

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PIECE = 1 << 16


def send(path: Path, times: int) -> None:
    data = path.read_bytes()
    pieces = [data[start : start + PIECE] for start in range(0, len(data), PIECE)]
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(30)
        print(server.getsockname()[1], flush=True)
        connection, _ = server.accept()
        with connection:
            connection.recv(PIECE)  # the request
            for _ in range(times):
                for piece in pieces:
                    connection.sendall(piece)


@contextmanager
def sender(path: Path, times: int) -> Iterator[int]:
    """Starts a process that sends the file `path` this number of times; yields its port."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.loopback", str(path), str(times)],
        cwd=Path(__file__).parent.parent,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()


def receive(port: int) -> int:
    """Requests the stream and reads until the other side closes; returns the number of bytes."""
    buffer = bytearray(1 << 18)
    total = 0
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(b"GET /sub HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        while count := connection.recv_into(buffer):
            total += count
    return total


if __name__ == "__main__":
    send(Path(sys.argv[1]), int(sys.argv[2]))
