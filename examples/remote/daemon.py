"""The daemon's end: the machine itself."""

from __future__ import annotations

from asyncmachine.net import serve
from examples.remote.handlers import make_downloader
from examples.remote.home import Home
from examples.remote.states import ALLOWED, Downloader


def run(home: Home, address: str) -> int:
    """Serve until a client adds ``Stopping``, or Ctrl-C."""
    home.prepare()
    with (
        make_downloader(home.files) as machine,
        serve(machine, address, secret=home.secret(), allow=ALLOWED) as server,
    ):
        print(f"listening at {server.address}, downloading to {home.files}", flush=True)
        machine.when_any(Downloader.Stopping, Downloader.Exception).wait()
        failure = machine.error
        machine.dispose()  # who follows is told; then the server closes
    print(f"failed: {failure!r}" if failure else "stopped")
    return 1 if failure else 0
