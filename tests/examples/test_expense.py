from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import product

import pytest

from asyncmachine import Machine, Result, Tracer, Transition
from examples.expense.client import ExpenseClient, ExpenseError
from examples.expense.handlers import make_expense
from examples.expense.server import ExpenseServer
from tests.examples.programs import help_of, press_ctrl_c, run, start

SOON = 10  # seconds; only a failing test waits so long

Approve = Callable[[], object]


@pytest.fixture
def server() -> Iterator[ExpenseServer]:
    with ExpenseServer() as server:
        yield server


@pytest.fixture
def client(server: ExpenseServer) -> ExpenseClient:
    return ExpenseClient(server.address)


@pytest.fixture
def expense(client: ExpenseClient) -> Iterator[Machine]:
    with make_expense("7", client) as expense:
        yield expense


def create(expense: Machine) -> None:
    expense.add("CreatingExpense")
    assert expense.when("WaitingForApproval").wait(SOON)


def post(server: ExpenseServer, path: str) -> tuple[int, str]:
    return request(server, "POST", path)


def request(server: ExpenseServer, method: str, path: str) -> tuple[int, str]:
    connection = HTTPConnection(server.address, timeout=SOON)
    connection.request(method, path)
    response = connection.getresponse()
    text = response.read().decode().strip()
    connection.close()
    return response.status, text


def test_an_approved_expense_is_paid(
    expense: Machine, client: ExpenseClient, server: ExpenseServer
) -> None:
    create(expense)
    assert post(server, "/action?id=7&type=approve") == (200, "expense 7 is Approved")
    assert expense.when("PaymentCompleted").wait(SOON)
    assert str(expense) == "(ExpenseCreated:1 ApprovalGranted:1 PaymentCompleted:1)"
    assert client.status("7") == "Paid"


def test_a_rejected_expense_is_never_paid(expense: Machine, client: ExpenseClient) -> None:
    create(expense)
    client.act("reject", "7")
    assert expense.when("ApprovalRejected").wait(SOON)
    assert expense.add("PaymentCompleted").wait(SOON) == Result.CANCELED
    assert expense.add("ApprovalGranted", expense_id="7").wait(SOON) == Result.CANCELED
    assert expense.tick("PaymentInProgress") == 0
    with pytest.raises(ExpenseError, match=r"409.*cannot pay expense 7, it is Rejected"):
        client.act("pay", "7")
    assert client.status("7") == "Rejected"


@pytest.mark.parametrize("state", ["PaymentInProgress", "PaymentCompleted"])
def test_no_payment_before_the_approval_even_when_asked(expense: Machine, state: str) -> None:
    create(expense)
    result = expense.add(state).wait(SOON)
    assert result == Result.CANCELED
    assert result.why == f"{state} requires ApprovalGranted, which is inactive"


def test_an_undecided_expense_stays_unpaid(
    expense: Machine, client: ExpenseClient, server: ExpenseServer
) -> None:
    create(expense)
    assert expense.when_queue_empty().wait(SOON)
    assert expense.tick("PaymentInProgress") == 0
    assert server.claims["7"].tick("Paid") == 0
    with pytest.raises(ExpenseError, match=r"409.*Paid requires Approved, which is inactive"):
        client.act("pay", "7")


class Order(Tracer):
    """Keeps which states activated, in order."""

    def __init__(self) -> None:
        self.activated: list[str] = []

    def transition_end(self, tx: Transition) -> None:
        self.activated += [s for s in tx.target_states if s not in tx.states_before]


def while_it_is_filed(expense: Machine, approve: Approve) -> None:
    """Decided before the machine waits for it."""
    expense.on("ExpenseCreated_state", lambda event: approve())
    expense.add("CreatingExpense")


def as_it_begins_to_wait(expense: Machine, approve: Approve) -> None:
    """Decided while the question is on its way to the server."""
    expense.on("WaitingForApproval_state", lambda event: approve())
    expense.add("CreatingExpense")


def once_it_waits(expense: Machine, approve: Approve) -> None:
    """Decided on another thread, which the machine does not wait for."""
    approver = threading.Thread(target=approve)
    expense.when("WaitingForApproval").on_done(lambda waiter: approver.start())
    expense.add("CreatingExpense")


@pytest.mark.parametrize("decide", [while_it_is_filed, as_it_begins_to_wait, once_it_waits])
def test_the_payment_comes_after_the_approval_whenever_that_comes(
    client: ExpenseClient, server: ExpenseServer, decide: Callable[[Machine, Approve], None]
) -> None:
    for number in map(str, range(50)):
        order = Order()
        with make_expense(number, client) as expense:
            expense.add_tracer(order)
            decide(expense, partial(client.act, "approve", number))
            assert expense.when("PaymentCompleted").wait(SOON), expense
        assert order.activated == [
            "CreatingExpense",
            "ExpenseCreated",
            "WaitingForApproval",
            "ApprovalGranted",
            "PaymentInProgress",
            "PaymentCompleted",
        ]
        assert server.claims[number].clock("Approved", "Paid") == {"Approved": 1, "Paid": 1}


@pytest.mark.parametrize("decision", ["ApprovalGranted", "ApprovalRejected"])
def test_a_decision_about_another_expense_is_refused(expense: Machine, decision: str) -> None:
    create(expense)
    result = expense.add(decision, expense_id="8").wait(SOON)
    assert result == Result.CANCELED
    assert result.why == f"vetoed by ExpenseHandlers.{decision}_enter"
    assert expense.is_active("WaitingForApproval")


@pytest.mark.parametrize(
    ("method", "path", "status", "reason"),
    [
        ("GET", "/status?id=8", 404, "no expense '8'"),
        ("GET", "/decision?id=8", 404, "no expense '8'"),
        ("POST", "/action?id=8&type=approve", 404, "no expense '8'"),
        ("POST", "/action?id=7&type=steal", 404, "no action 'steal': approve, reject or pay"),
        ("POST", "/action?id=7", 400, "type is missing"),
        ("GET", "/status", 400, "id is missing"),
        ("POST", "/create?id=", 400, "id is missing"),
        ("POST", "/create?id=7", 409, "expense 7 exists already"),
        ("GET", "/action?id=7&type=approve", 404, "no GET /action here"),
        ("POST", "/nothing", 404, "no POST /nothing here"),
    ],
)
def test_the_server_refuses_what_is_unknown_and_names_it(
    server: ExpenseServer, method: str, path: str, status: int, reason: str
) -> None:
    post(server, "/create?id=7")
    assert request(server, method, path) == (status, reason)
    assert request(server, "GET", "/status?id=7") == (200, "Created")


@pytest.mark.parametrize(
    ("first", "second"), list(product(["approve", "reject"], ["approve", "reject"]))
)
def test_a_decision_is_made_once(server: ExpenseServer, first: str, second: str) -> None:
    post(server, "/create?id=7")
    _, told = post(server, f"/action?id=7&type={first}")
    status, reason = post(server, f"/action?id=7&type={second}")
    assert status == 409
    assert reason.startswith(f"cannot {second} expense 7, it is {told.split()[-1]}: vetoed by")
    assert request(server, "GET", "/status?id=7")[1] == told.split()[-1]


def test_a_payment_is_made_once(server: ExpenseServer) -> None:
    for path in ("/create?id=7", "/action?id=7&type=approve", "/action?id=7&type=pay"):
        assert post(server, path)[0] == 200
    assert post(server, "/action?id=7&type=pay")[0] == 409


def test_the_page_offers_undecided_expenses_and_harms_no_browser(server: ExpenseServer) -> None:
    post(server, "/create?id=%3Cb%3E7%22")
    post(server, "/create?id=6")
    post(server, "/action?id=6&type=reject")
    status, page = request(server, "GET", "/")
    assert status == 200
    assert "<td>&lt;b&gt;7&quot;<td>Created" in page
    assert 'action="/action?id=%3Cb%3E7%22&amp;type=approve"' in page
    assert "<td>6<td>Rejected<td><tr>" in page


@contextmanager
def strange(post: tuple[int, bytes], get: tuple[int, bytes] = (200, b"")) -> Iterator[str]:
    """A server that answers this, and announces seven bytes whatever it sends."""

    class Strange(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.answer(*post)

        def do_GET(self) -> None:
            self.answer(*get)

        def answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "7")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Strange) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


def ends_in_exception(expense: Machine) -> str:
    expense.add("CreatingExpense")
    assert expense.when_error().wait(SOON)
    assert expense.any_active("ApprovalGranted", "ApprovalRejected") is False
    return str(expense.error)


def test_an_error_of_the_server_ends_in_exception() -> None:
    with (
        strange(post=(500, b"no disk")) as address,
        make_expense("7", ExpenseClient(address)) as expense,
    ):
        assert ends_in_exception(expense) == "500 Internal Server Error: no disk"
        assert expense.active_states() == ("Exception",)


@pytest.mark.parametrize(
    ("answer", "error"),
    [(b"Perhaps", "'Perhaps'"), (b"App", "IncompleteRead"), (b"", "Incomplete")],
)
def test_an_answer_that_is_no_decision_ends_in_exception(answer: bytes, error: str) -> None:
    with (
        strange(post=(200, b"Created"), get=(200, answer)) as address,
        make_expense("7", ExpenseClient(address)) as expense,
    ):
        assert error in ends_in_exception(expense)


def test_a_server_that_is_not_there_ends_in_exception(server: ExpenseServer) -> None:
    with ExpenseServer() as gone:
        address = gone.address
    with make_expense("7", ExpenseClient(address)) as expense:
        assert "refused" in ends_in_exception(expense)


def test_an_expense_that_exists_already_ends_in_exception(
    expense: Machine, server: ExpenseServer
) -> None:
    post(server, "/create?id=7")
    assert ends_in_exception(expense) == "409 Conflict: expense 7 exists already"


def test_a_server_that_closes_ends_the_waiting_in_exception() -> None:
    with ExpenseServer() as server:
        expense = make_expense("7", ExpenseClient(server.address))
        create(expense)
    with expense:
        assert expense.when_error().wait(SOON)
        assert expense.active_states() == ("Exception", "ExpenseCreated")


def test_disposing_ends_the_waiting_without_an_error(expense: Machine) -> None:
    create(expense)
    expense.dispose()
    assert expense.is_disposed
    assert expense.error is None


@pytest.mark.parametrize(
    ("args", "outcome", "decision"),
    [
        ([], "paid", "Approved"),
        (["--approve"], "paid", "Approved"),
        (["--reject"], "rejected, not paid", "Rejected"),
    ],
)
def test_it_runs_to_the_end_by_itself(args: list[str], outcome: str, decision: str) -> None:
    program = run("expense", *args, "--id", "lunch")
    assert (program.stderr, program.returncode) == ("", 0)
    assert f"expense lunch is {decision}\n" in program.stdout
    assert program.stdout.splitlines()[-1] == outcome
    assert ("PaymentInProgress:0" in program.stdout) == (outcome != "paid")


def read_address(program: subprocess.Popen[str]) -> str:
    assert program.stdout is not None
    for line in program.stdout:
        if found := re.search("http://([0-9.:]+)/$", line):
            return found[1]
    raise AssertionError(program.communicate())


def test_a_person_decides_over_http() -> None:
    with start("expense", "--serve", "--id", "lunch") as program:
        client = ExpenseClient(read_address(program))
        with pytest.raises(ExpenseError, match="404 Not Found: no expense 'dinner'"):
            client.act("approve", "dinner")
        client.act("approve", "lunch")
        output, errors = program.communicate(timeout=SOON)
    assert output.splitlines()[-1] == "paid"
    assert (errors, program.returncode) == ("", 0)


def test_ctrl_c_stops_it_cleanly() -> None:
    with start("expense", "--serve") as program:
        read_address(program)
        output, errors = press_ctrl_c(program)
    assert output.splitlines()[-1] == "interrupted"
    assert (errors, program.returncode) == ("", 130)


def test_an_error_ends_in_exception_and_is_told() -> None:
    program = run("expense", "--id", "")
    assert program.stdout.splitlines()[-1] == "failed: 400 Bad Request: id is missing"
    assert (program.stderr, program.returncode) == ("", 1)


def test_a_port_that_is_taken_is_misuse(server: ExpenseServer) -> None:
    for port in (server.server_port, 70000):
        program = run("expense", "--port", port)
        assert program.returncode == 2
        assert f"error: --port {port}: " in program.stderr


def test_help_teaches() -> None:
    assert "--serve" in help_of("expense")
