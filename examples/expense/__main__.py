"""Run the expense flow from the command line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from urllib.parse import quote

from asyncmachine import Machine, wait_any
from examples.expense.client import ExpenseClient
from examples.expense.handlers import make_expense
from examples.expense.server import ExpenseServer
from examples.expense.states import Expense


def main(argv: Sequence[str] | None = None) -> int:
    """Exit with 0 once it is decided and done, 1 after an error, 130 after Ctrl-C."""
    parser = make_parser()
    args = parser.parse_args(argv)
    try:
        server = ExpenseServer(args.port)
    except (OSError, OverflowError) as error:
        parser.error(f"--port {args.port}: {error}")
    client = ExpenseClient(server.address)
    try:
        with server, make_expense(args.id, client) as expense:
            return run(expense, client, args.decision)
    except KeyboardInterrupt:
        say("interrupted")
        return 130


def run(expense: Machine, client: ExpenseClient, decision: str | None) -> int:
    """Take an expense to its end; without a decision here, somebody else has to make one."""
    expense.on("Any_state", lambda event: say(str(event.machine)))
    waiting = expense.when(Expense.WaitingForApproval)
    ended = expense.when_any(Expense.PaymentCompleted, Expense.ApprovalRejected, Expense.Exception)
    expense.add(Expense.CreatingExpense)
    if wait_any(waiting, ended) is waiting:
        if decision:
            say(client.act(decision, expense.id))
        else:
            invite(client.address, expense.id)
    ended.wait()
    return report(expense)


def invite(address: str, expense_id: str) -> None:
    """Tell a person how to decide."""
    say(f"Decide about expense {expense_id} in a browser: http://{address}/")
    say(f"or here: curl -X POST 'http://{address}/action?id={quote(expense_id)}&type=approve'")
    say("Ctrl-C gives up.")


def report(expense: Machine) -> int:
    """Say how it ended, and give the exit code."""
    say(expense.describe())
    if expense.is_active(Expense.Exception):
        say(f"failed: {expense.error}")
        return 1
    say("paid" if expense.is_active(Expense.PaymentCompleted) else "rejected, not paid")
    return 0


def say(text: str) -> None:
    """Print a line in one piece: several threads speak here."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def make_parser() -> argparse.ArgumentParser:
    """What the command line takes, and the help that teaches it."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.expense",
        description="File an expense on a server, wait until it is decided about, and pay it if"
        " that was granted. The server runs here too, on loopback.",
        epilog="Each line shows the active states and their ticks after a transition. Try"
        " --approve first, then --serve and a browser.",
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--approve",
        action="store_const",
        const="approve",
        dest="decision",
        default="approve",
        help="approve it over HTTP, as a person would (the default)",
    )
    how.add_argument(
        "--reject", action="store_const", const="reject", dest="decision", help="reject it"
    )
    how.add_argument(
        "--serve",
        action="store_const",
        const=None,
        dest="decision",
        help="wait for a person to decide in a browser or with curl",
    )
    parser.add_argument("--id", default="expense-1", help="of the expense (default: %(default)s)")
    parser.add_argument(
        "--port", type=int, default=0, help="for the server (default: any that is free)"
    )
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
