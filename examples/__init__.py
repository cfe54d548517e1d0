"""Programs to read and to run, from the smallest to a real one.

- ``python -m examples.fsm``: a turnstile, the finite state machine of every textbook.
- ``python -m examples.nfa``: an automaton that is in several states at once.
- ``python -m examples.expense``: an expense that waits for a person's approval before it is paid.
- ``python -m examples.file_processing``: files that are downloaded, processed and uploaded, one
  machine a file, several at a time.

Each explains itself with ``--help``, and each has its test in ``tests/examples``.
"""
