"""A connection that breaks when it should."""

from __future__ import annotations

import socket
import sys
import threading


class Relay:
    """A way to a local port. Its first connection breaks after so many bytes of the answer; later ones hold."""

    def __init__(self, port: int, *, cut_after_bytes: int) -> None:
        self.connections = 0
        self._port = port
        self._cut_after_bytes = cut_after_bytes
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.base_url = f"http://127.0.0.1:{self._listening.getsockname()[1]}/v1"

    def __enter__(self) -> Relay:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts; closing would not
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                caller, _ = self._listening.accept()
            except OSError:
                return  # closed
            allowance = self._cut_after_bytes if self.connections == 0 else sys.maxsize
            self.connections += 1
            threading.Thread(target=self._carry, args=(caller, allowance), daemon=True).start()

    def _carry(self, caller: socket.socket, allowance: int) -> None:
        with caller, socket.create_connection(("127.0.0.1", self._port)) as server:
            asking = threading.Thread(target=_pump, args=(caller, server, sys.maxsize), daemon=True)
            asking.start()
            _pump(server, caller, allowance)
            asking.join()


def _pump(origin: socket.socket, target: socket.socket, allowance: int) -> None:
    """Carry bytes until one side closes or the allowance is used up; then break both."""
    try:
        while allowance > 0 and (data := origin.recv(65536)):
            target.sendall(data[:allowance])
            allowance -= len(data)
    except OSError:
        pass  # the other direction has broken it
    for end in (origin, target):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # broken already
