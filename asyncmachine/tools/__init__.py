"""The command line ``am`` and what its commands are made of."""

from __future__ import annotations

__all__: list[str] = []
