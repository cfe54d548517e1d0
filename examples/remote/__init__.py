"""A daemon that downloads files, and a command line that drives and follows it.

The daemon is one state machine in a process of its own. The command line is another process,
and holds a mirror of that machine: it reads and waits there as if the machine were its own, and
what it adds is carried out where the daemon runs::

    $ python -m examples.remote daemon &
    $ python -m examples.remote follow &
    $ python -m examples.remote add --wait https://example.org/
    $ python -m examples.remote status
    $ python -m examples.remote stop

- `states`: the life of the downloader, declared as relations.
- `handlers`: what the daemon does in each state; the downloading itself is a fork.
- `home`: the directory of the two, with the secret that both of them prove to each other.
- `daemon` and `client`: the two ends.
"""
