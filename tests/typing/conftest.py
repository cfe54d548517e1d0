"""The files beside this one are read by type checkers, and never run."""

from __future__ import annotations

collect_ignore = ["accepted.py", "refused.py"]
