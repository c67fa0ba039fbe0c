"""A server that a test can make unreachable, while it goes on for everybody else."""

import socket
import threading
from contextlib import suppress


class Gate:
    """A way to a server that a test can shut: a forwarded port of an address on loopback, any free one for 0."""

    def __init__(self, target: int, host: str = "127.0.0.1", port: int = 0, *, closes_at: bytes | None = None) -> None:
        self._target = target
        #: What a client sends that closes the gate, before the server sees it.
        self._closes_at = closes_at
        self._listener = socket.create_server((host, port))
        self._open: list[socket.socket] = []
        self._lost: list[socket.socket] = []
        self.port = self._listener.getsockname()[1]
        self.shut = False
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                inside, _ = self._listener.accept()
                outside = None
                if not self.shut:
                    # A server that is down now may be up for the next one.
                    with suppress(OSError):
                        outside = socket.create_connection(("127.0.0.1", self._target))
                if outside is None:
                    inside.close()
                    continue
                self._open += [inside, outside]
                for source, sink in ((inside, outside), (outside, inside)):
                    threading.Thread(target=self._forward, args=(source, sink), daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if self._closes_at is not None and self._closes_at in data:
                    self.close()
                    return
                sink.sendall(data)
            if sink not in self._lost:
                sink.shutdown(socket.SHUT_RDWR)

    def lose(self) -> None:
        """Cut every connection as a network does that is gone: the client notices, the server hears nothing of it."""
        self._lost += self._open[1::2]
        for inside in self._open[::2]:
            with suppress(OSError):
                inside.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    def close(self) -> None:
        """Shut the gate and cut every connection that goes through it: new ones are closed at once."""
        self.shut = True
        for end in (*self._open, *self._lost):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._open.clear()
        self._lost.clear()
