"""What is done in each state of an expense.

A handler must not block its machine, so what takes time is forked: it runs on a thread of its
own, with a context that expires when the state ends, and what it raises becomes ``Exception``.
"""

from __future__ import annotations

from asyncmachine import Event, Machine, StateContext
from examples.expense.client import ExpenseClient
from examples.expense.states import Expense

OUTCOMES = {"Approved": Expense.ApprovalGranted, "Rejected": Expense.ApprovalRejected}


class ExpenseHandlers:
    """Takes one expense through its course, by way of the server."""

    def __init__(self, expense_id: str, client: ExpenseClient) -> None:
        self.expense_id = expense_id
        self.client = client

    def CreatingExpense_state(self, event: Event) -> None:
        event.fork(self.create, event.machine)

    def WaitingForApproval_state(self, event: Event) -> None:
        event.fork(self.wait_for_decision, event.machine)

    def ApprovalGranted_enter(self, event: Event) -> bool:
        return self.is_awaited(event)

    def ApprovalRejected_enter(self, event: Event) -> bool:
        return self.is_awaited(event)

    def PaymentInProgress_state(self, event: Event) -> None:
        event.fork(self.pay, event.machine)

    def is_awaited(self, event: Event) -> bool:
        """Whether this is the decision that the machine waits for; False refuses it."""
        waiting = event.machine.is_active(Expense.WaitingForApproval)
        return waiting and event.args.get("expense_id") == self.expense_id

    def create(self, ctx: StateContext, machine: Machine) -> None:
        self.client.create(self.expense_id)
        ctx.check()
        machine.add(Expense.ExpenseCreated)

    def wait_for_decision(self, ctx: StateContext, machine: Machine) -> None:
        decision = self.client.decision(self.expense_id, ctx)
        ctx.check()
        machine.add(OUTCOMES[decision], expense_id=self.expense_id)

    def pay(self, ctx: StateContext, machine: Machine) -> None:
        self.client.act("pay", self.expense_id)
        ctx.check()
        machine.add(Expense.PaymentCompleted)


def make_expense(expense_id: str, client: ExpenseClient) -> Machine:
    """Build the machine of one expense; it begins with ``add("CreatingExpense")``."""
    return Machine(Expense, id=expense_id, handlers=ExpenseHandlers(expense_id, client))
