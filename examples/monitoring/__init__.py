"""A shop that can be watched: metrics for Prometheus and Grafana, traces for Jaeger.

- `shop`: the machines, a shop and its workers.
- `observing`: what watches them.
- ``compose.yaml``: Prometheus, Grafana and Jaeger around it, for those who have Docker.

Run it with ``python -m examples.monitoring``.
"""
