"""The command line's end: what can be done with a mirror of the machine."""

from __future__ import annotations

import threading
from collections.abc import Callable

from asyncmachine import Event, wait_any
from asyncmachine.net import RemoteMachine
from examples.remote.states import Downloader


def add(remote: RemoteMachine, urls: list[str], *, wait: bool) -> int:
    """Put addresses in line; with ``wait`` stay until each of them has come or failed."""
    code = 0
    for url in urls:
        # Waiters are made before the request, so they can not miss what follows from it.
        done = remote.when_args(Downloader.Downloaded, {"url": url})
        failed = remote.when_args(Downloader.Failed, {"url": url})
        result = remote.add(Downloader.Added, url=url)
        if not result:
            print(f"refused {url}: {result.why}")
            code = 1
        elif not wait:
            print(f"added {url}")
        elif wait_any(done, failed) is done and done.args:
            print(f"downloaded {url}: {done.args['path']}")
        else:
            why = failed.args["why"] if failed.args else "the daemon is gone"
            print(f"failed {url}: {why}")
            code = 1
    return code


def status(remote: RemoteMachine) -> int:
    """Say what the mirror shows; reading it asks nobody."""
    counts = ", ".join(
        f"{(remote.tick(state) + 1) // 2} {state.lower()}"  # a multi state moves by 2
        for state in (Downloader.Added, Downloader.Downloaded, Downloader.Failed)
    )
    doing = remote.switch(Downloader.Downloading, Downloader.Stopping)
    print(f"{counts}; {(doing or 'idle').lower()}")
    return 0


def follow(remote: RemoteMachine) -> int:
    """Print each event, in order, until the daemon ends; none is missed."""
    told_last = threading.Event()

    def tell(words: str) -> Callable[[Event], object]:
        return lambda event: print(words.format(**event.args), flush=True)

    listeners = {
        "Added_state": tell("added {url}"),
        "Downloading_state": tell("downloading"),
        "Downloaded_state": tell("downloaded {url}: {size} bytes"),
        "Failed_state": tell("failed {url}: {why}"),
        "Stopping_state": lambda event: told_last.set(),
    }
    remote.bind(listeners)
    print(f"following {remote.id}: {remote.describe()}", flush=True)
    remote.when_disposed().wait()
    if remote.is_active(Downloader.Stopping):
        told_last.wait()  # listeners hear of events a moment after the mirror shows them
        print("stopped")
        return 0
    print("the daemon is gone")
    return 1


def stop(remote: RemoteMachine) -> int:
    """Have the daemon end, and wait until its machine is gone."""
    remote.add(Downloader.Stopping)
    remote.when_disposed().wait()
    print("stopped")
    return 0
