"""What reads feeds: the receiver, dump files, and what a debugger is built on.

``pip install asyncmachine[feed]``. Each module is imported by name:

- ``asyncmachine.debugger.collector``: receives the feeds of any number of programs.
- ``asyncmachine.debugger.dumps``: writes and reads ``.amdump`` files.
"""

from __future__ import annotations

__all__: list[str] = []
