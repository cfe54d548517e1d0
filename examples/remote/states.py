"""The life of a downloader."""

from __future__ import annotations

from asyncmachine import State, States


class Downloader(States):
    """It works as long as something is pending.

    What happens again and again is ``multi``; each of its activations is an event with args of
    its own, and the clocks count them.
    """

    Added = State(multi=True, add="Pending")  # args: url
    Pending = State()
    Downloading = State(auto=True, require=Pending)

    Downloaded = State(multi=True)  # args: url, path, size
    Failed = State(multi=True)  # args: url, why

    Stopping = State(remove=(Pending, Downloading))
    Exception = State(multi=True, remove=Downloading)


# What clients may call; all else is the daemon's own business.
ALLOWED = (Downloader.Added, Downloader.Stopping)
