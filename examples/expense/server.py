"""The expense system: a small HTTP server, where each expense is a state machine too.

=======  =============================  =====================================================
method   path                           what it does
=======  =============================  =====================================================
GET      /                              a page with all expenses, and buttons to decide
POST     /create?id=ID                  file an expense
GET      /status?id=ID                  Created, Approved, Rejected or Paid
GET      /decision?id=ID                answers once it is decided: Approved or Rejected
POST     /action?id=ID&type=TYPE        approve, reject or pay
=======  =============================  =====================================================

What is unknown is refused with 404, what the rules forbid with 409; the answer says why.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from html import escape
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import parse_qsl, quote, urlsplit

from asyncmachine import Event, Machine, State, States


class Claim(States):
    """An expense, as the server keeps it."""

    Created = State()
    Approved = State(require=Created, remove="Rejected")
    Rejected = State(require=Created, remove=Approved)
    Paid = State(require=Approved)


def refuse(event: Event) -> bool:
    """Veto whatever is asked."""
    return False


# From one state to another, or to itself: none of these ever happens.
FORBIDDEN = dict.fromkeys(
    (
        "Approved_Approved",
        "Approved_Rejected",
        "Rejected_Rejected",
        "Rejected_Approved",
        "Paid_Paid",
    ),
    refuse,
)

ACTIONS = {"approve": Claim.Approved, "reject": Claim.Rejected, "pay": Claim.Paid}


class RefusedError(Exception):
    """A request that is answered with an error status and the reason."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class ExpenseServer(ThreadingHTTPServer):
    """Serves on loopback while its ``with`` block lasts."""

    daemon_threads = False  # leaving the block waits for answers that are on their way

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), ExpenseRequest)
        self.claims: dict[str, Machine] = {}

    @property
    def address(self) -> str:
        """Where it listens: ``127.0.0.1:PORT``."""
        return f"127.0.0.1:{self.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        for claim in list(self.claims.values()):
            claim.dispose()  # wakes those who wait for a decision
        self.server_close()

    def page(self) -> str:
        """A page for a person to decide on."""
        rows = "".join(self._row(expense_id) for expense_id in sorted(self.claims))
        return f"<!doctype html><title>Expenses</title><h1>Expenses</h1><table>{rows}</table>"

    def create(self, expense_id: str) -> str:
        claim = Machine(Claim, id=expense_id, handlers=FORBIDDEN)
        claim.add(Claim.Created)
        if self.claims.setdefault(expense_id, claim) is not claim:
            raise RefusedError(HTTPStatus.CONFLICT, f"expense {expense_id} exists already")
        return f"expense {expense_id} is Created"

    def status(self, expense_id: str) -> str:
        claim = self.claim(expense_id)
        return str(claim.switch(Claim.Paid, Claim.Approved, Claim.Rejected, Claim.Created))

    def decision(self, expense_id: str) -> str:
        claim = self.claim(expense_id)
        claim.when_any(Claim.Approved, Claim.Rejected).wait()
        decision = claim.switch(Claim.Approved, Claim.Rejected)
        if decision is None:
            raise RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, "the server is closing")
        return decision

    def act(self, expense_id: str, action: str) -> str:
        claim = self.claim(expense_id)
        if action not in ACTIONS:
            raise RefusedError(
                HTTPStatus.NOT_FOUND, f"no action {action!r}: approve, reject or pay"
            )
        result = claim.add(ACTIONS[action]).wait()
        status = self.status(expense_id)
        if not result:
            reason = f"cannot {action} expense {expense_id}, it is {status}: {result.why}"
            raise RefusedError(HTTPStatus.CONFLICT, reason)
        return f"expense {expense_id} is {status}"

    def claim(self, expense_id: str) -> Machine:
        try:
            return self.claims[expense_id]
        except KeyError:
            raise RefusedError(HTTPStatus.NOT_FOUND, f"no expense {expense_id!r}") from None

    def _row(self, expense_id: str) -> str:
        status = self.status(expense_id)
        buttons = "".join(
            f'<form method="post" action="/action?id={quote(expense_id)}&amp;type={action}">'
            f"<button>{action}</button></form>"
            for action in ("approve", "reject")
            if status == Claim.Created
        )
        return f"<tr><td>{escape(expense_id)}<td>{status}<td>{buttons}"


class Query(dict[str, str]):
    """The part of an address after the question mark."""

    def __missing__(self, name: str) -> str:
        raise RefusedError(HTTPStatus.BAD_REQUEST, f"{name} is missing")


ROUTES: dict[tuple[str, str], Callable[[ExpenseServer, Query], str]] = {
    ("GET", "/"): lambda server, query: server.page(),
    ("POST", "/create"): lambda server, query: server.create(query["id"]),
    ("GET", "/status"): lambda server, query: server.status(query["id"]),
    ("GET", "/decision"): lambda server, query: server.decision(query["id"]),
    ("POST", "/action"): lambda server, query: server.act(query["id"], query["type"]),
}


class ExpenseRequest(BaseHTTPRequestHandler):
    """Answers one request, on a thread of its own."""

    server: ExpenseServer
    timeout = 2  # seconds for a client that connects and says nothing

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet: what happens is told by the machines."""

    def _answer(self) -> None:
        try:
            status, text = HTTPStatus.OK, self._route()
        except RefusedError as refused:
            status, text = refused.status, f"{refused}\n"
        kind, body = "html" if text.startswith("<") else "plain", text.encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", f"text/{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        except ConnectionError:
            pass  # the client has gone, and asks no more

    def _route(self) -> str:
        url = urlsplit(self.path)
        route = ROUTES.get((self.command, url.path))
        if route is None:
            raise RefusedError(HTTPStatus.NOT_FOUND, f"no {self.command} {url.path} here")
        return route(self.server, Query(parse_qsl(url.query)))
