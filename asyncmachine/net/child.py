"""``python -m asyncmachine.net.child FD``: a process that a network has started."""

from __future__ import annotations

import sys

from asyncmachine.net.host import main

if __name__ == "__main__":
    main(int(sys.argv[1]))
