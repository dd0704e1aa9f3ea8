"""A way to a server over TCP that can be closed and opened again, as where the server is restarted: nothing of it is lost."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Forwarder:
    """Listens in a server's place and hands on what comes."""

    def __init__(self, host: str, target: tuple[str, int]) -> None:
        self.target, self._host, self._port = target, host, 0
        self._listener: socket.socket | None = None
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self.opened()

    @property
    def address(self) -> str:
        return f"{self._host}:{self._port}"

    def opened(self) -> None:
        """From now on whoever connects reaches the server."""
        listener = socket.create_server((self._host, self._port))
        self._port, self._listener = listener.getsockname()[1], listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def closed(self) -> None:
        """From now on connections are refused; those that are there break."""
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)  # close alone leaves it to whoever waits in accept
            self._listener.close()
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
                server = socket.create_connection(self.target)
            except OSError:
                if listener.fileno() == -1 or listener is not self._listener:
                    return
                client.close()
                continue
            with self._lock:
                self._open |= {client, server}
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._copy, args=(source, sink), daemon=True).start()

    def _copy(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


@contextmanager
def forwarded(host: str, target: tuple[str, int]) -> Iterator[Forwarder]:
    there = Forwarder(host, target)
    try:
        yield there
    finally:
        there.closed()
