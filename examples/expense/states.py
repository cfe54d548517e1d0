"""The course of an expense."""

from __future__ import annotations

from asyncmachine import State, States


class Expense(States):
    """Created, decided about, and paid only if that was granted.

    What is under way is an auto state: it begins by itself once all it requires holds, and ends
    when its outcome, or an error, removes it. That a payment waits for the approval is said
    once, by ``require``, and holds whatever the handlers do.
    """

    CreatingExpense = State(remove="ExpenseCreated")
    ExpenseCreated = State(remove=CreatingExpense)

    WaitingForApproval = State(auto=True, require=ExpenseCreated)
    ApprovalGranted = State(require=ExpenseCreated, remove=(WaitingForApproval, "ApprovalRejected"))
    ApprovalRejected = State(require=ExpenseCreated, remove=(WaitingForApproval, ApprovalGranted))

    PaymentInProgress = State(auto=True, require=ApprovalGranted)
    PaymentCompleted = State(require=ApprovalGranted, remove=PaymentInProgress)

    Exception = State(multi=True, remove=(CreatingExpense, WaitingForApproval, PaymentInProgress))
