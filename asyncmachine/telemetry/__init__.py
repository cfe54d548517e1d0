"""What observers make of machines: traces, metrics, and the feed that the debugger reads.

Each module needs an extra of its own, and is imported by name:

- ``asyncmachine.telemetry.otel``: OpenTelemetry spans; ``pip install asyncmachine[otel]``.
- ``asyncmachine.telemetry.prometheus`` and ``.grafana``: metrics and dashboards;
  ``pip install asyncmachine[prometheus]``.
- ``asyncmachine.telemetry.feed``: every transition, sent to a debugger or a recorder;
  ``pip install asyncmachine[feed]``.
"""

from __future__ import annotations

__all__: list[str] = []
