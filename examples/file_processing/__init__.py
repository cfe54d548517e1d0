"""Files that are downloaded, processed and uploaded: one machine a file, several at a time.

- `states`: the course of a file, declared as relations.
- `handlers`: what is done in each state, on threads.
- `work`: the work itself, which knows nothing of states.
- `view`: bars while it runs, a table at the end.

Run it with ``python -m examples.file_processing PATH_OR_URL…``. With ``--history FILE`` it is a
durable workflow: killed at any point, and started again with the same arguments, it finishes.
"""
