"""What somebody else on this machine tries: another user if the tests run as root, and a page in a browser."""

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

#: The user `nobody`, who owns nothing.
NOBODY = 65534
#: What a foreign page may let a browser send: an image's GET, and a form's POST with any body.
_HEADERS = "Host: 127.0.0.1\r\nOrigin: https://foreign.example\r\nReferer: https://foreign.example/\r\n"

#: The packages of Python lie in a home of another user: nobody's rights come after its imports.
_BECOME = f"""
import encodings.idna, http.client, os, socket, sys, time
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid({NOBODY})
    os.setuid({NOBODY})
"""

_SEND = """
host, port, seconds = "127.0.0.1", int(sys.argv[1]), float(sys.argv[2])
answer = b""
with socket.socket() as connection:
    connection.settimeout(seconds)
    # Not by a name: Python would look for a codec that nobody may read.
    connection.connect((host, port))
    try:
        connection.sendall(sys.stdin.buffer.read())
        while len(answer) < 1_000_000 and (more := connection.recv(65536)):
            answer += more
    except (ConnectionError, TimeoutError):
        pass
sys.stdout.buffer.write(answer)
"""


def as_stranger(program: str, *words: str, given: bytes = b"", seconds: float = 60) -> bytes:
    """What a program in Python prints as the user nobody, or as this user if the tests may not change it."""
    command = [sys.executable, "-I", "-c", _BECOME + program, *words]
    return subprocess.run(command, input=given, stdout=subprocess.PIPE, cwd="/", timeout=seconds, check=True).stdout


def said_to(port: int, sent: bytes, seconds: float = 2) -> bytes:
    """What comes back from a port of 127.0.0.1 when a stranger sends bytes to it, until it hangs up or is silent.

    Raises CalledProcessError where nothing listens there.
    """
    return as_stranger(_SEND, str(port), str(seconds), given=sent)


_KILL = """
until, asked = time.monotonic() + float(sys.argv[2]), 0
while time.monotonic() < until:
    connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=5)
    for number in range(asked % 40, asked % 40 + 4):
        connection.request("GET", f"/jobs/job/kill/?id={number}", headers={"Origin": "https://foreign.example"})
        connection.getresponse().read()
    asked += 1
    connection.close()
print(asked)
"""


def kill_jobs(ui: int, seconds: float) -> int:
    """Ask Spark's web interface, over and over, to end its first jobs, as images of a foreign page would."""
    return int(as_stranger(_KILL, str(ui), str(seconds)))


_READ = """
for top in sys.argv[1:]:
    for folder, _, files in os.walk(top):
        for path in (os.path.join(folder, file) for file in files):
            if os.access(path, os.R_OK):
                print(path)
    if os.path.isfile(top) and os.access(top, os.R_OK):
        print(top)
"""


def readable(paths: Iterable[Path]) -> list[str]:
    """The files among some, or below some folders, that a stranger may read."""
    return as_stranger(_READ, *map(str, paths)).decode().splitlines()


def get(port: int, path: str, seconds: float = 5) -> bytes:
    """What a browser gets for an image of a foreign page."""
    return said_to(port, f"GET {path} HTTP/1.1\r\n{_HEADERS}Connection: close\r\n\r\n".encode(), seconds)


def post(port: int, body: bytes, seconds: float = 2) -> bytes:
    """What a browser gets for a form of a foreign page, whose body is any text."""
    head = f"POST / HTTP/1.1\r\n{_HEADERS}Content-Type: text/plain\r\nContent-Length: {len(body)}\r\n\r\n"
    return said_to(port, head.encode() + body, seconds)


def upgraded(port: int, path: str) -> bytes:
    """What a browser gets if a foreign page opens a WebSocket."""
    wanted = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    wanted += "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    return said_to(port, f"GET {path} HTTP/1.1\r\n{_HEADERS}{wanted}\r\n".encode())
