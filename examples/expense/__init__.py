"""An expense that waits for a person's approval before it is paid.

The flow of Temporal's expense sample, with a state machine in the place of the workflow engine:
the expense is created on a server, somebody decides about it there, and only then is it paid.

- `states`: the course of an expense, declared as relations.
- `handlers`: what is done in each state.
- `server` and `client`: the expense system, over HTTP on this host.

Run it with ``python -m examples.expense``.
"""
