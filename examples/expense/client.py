"""The expense system as its users see it."""

from __future__ import annotations

import socket
from http import HTTPStatus
from http.client import HTTPConnection
from urllib.parse import urlencode

from asyncmachine import StateContext


class ExpenseError(Exception):
    """The server refused a request; the message is its reason."""


class ExpenseClient:
    """Calls a server at ``HOST:PORT``; every call waits for the answer."""

    def __init__(self, address: str) -> None:
        self.address = address

    def create(self, expense_id: str) -> str:
        return self._call("POST", "/create", id=expense_id)

    def status(self, expense_id: str) -> str:
        return self._call("GET", "/status", id=expense_id)

    def act(self, action: str, expense_id: str) -> str:
        """Approve, reject or pay."""
        return self._call("POST", "/action", id=expense_id, type=action)

    def decision(self, expense_id: str, ctx: StateContext | None = None) -> str:
        """Wait until somebody decides, or the context expires: Approved or Rejected."""
        return self._call("GET", "/decision", ctx, id=expense_id)

    def _call(self, method: str, path: str, ctx: StateContext | None = None, **query: str) -> str:
        connection = HTTPConnection(self.address)
        try:
            connection.connect()
            if ctx is not None:
                line = connection.sock
                ctx.on_expire(lambda _: hang_up(line))
            connection.request(method, f"{path}?{urlencode(query)}")
            response = connection.getresponse()
            text = response.read().decode().strip()
        finally:
            connection.close()
        if response.status != HTTPStatus.OK:
            msg = f"{response.status} {response.reason}: {text}"
            raise ExpenseError(msg)
        return text


def hang_up(line: socket.socket) -> None:
    """End a call from another thread: who waits for its answer wakes up."""
    try:
        line.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # it is over already
