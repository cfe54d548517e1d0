"""Run the shop, with metrics, and with traces if somebody takes them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from threading import Event

from asyncmachine import Tracer
from examples.monitoring.shop import Shop


def main(argv: Sequence[str] | None = None) -> int:
    """Exit with 0 at the end, 1 if something is missing or taken, 130 on Ctrl-C."""
    args = make_parser().parse_args(argv)
    try:
        from examples.monitoring.observing import metrics, traces
    except ImportError as error:
        print(f"{error}; pip install -e '.[otel,prometheus]'", file=sys.stderr)
        return 1
    with ExitStack() as stack:
        tracers: list[Tracer] = []
        if args.otlp:
            tracers.append(stack.enter_context(traces(args.otlp)))
        try:
            collector, port = stack.enter_context(metrics(args.host, args.port))
        except (OSError, OverflowError) as error:
            print(f"port {args.port} of {args.host}: {error}", file=sys.stderr)
            return 1
        shop = Shop(args.workers, args.rate, args.seed, tracers)
        stack.enter_context(shop.machine)
        for machine in (shop.machine, *(worker.machine for worker in shop.workers)):
            collector.add(machine)
        print(f"metrics: http://{args.host}:{port}/metrics; Ctrl-C ends it", flush=True)
        shop.machine.add("Open")
        try:
            Event().wait(args.duration)
        except KeyboardInterrupt:
            return 130
        finally:
            shop.machine.remove("Open")
            print(shop.machine.describe())
    return 0


def make_parser() -> argparse.ArgumentParser:
    """What the command line takes, and the help that teaches it."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.monitoring",
        description="A shop of machines with metrics for Prometheus and traces for Jaeger. Orders"
        " come at random; some are refused, some fail.",
        epilog="With Docker, 'docker compose -f examples/monitoring/compose.yaml up' runs it with"
        " Prometheus, Grafana and Jaeger around it: http://localhost:3000.",
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address for the metrics (default: %(default)s)")
    add("--port", type=int, default=9464, help="port for the metrics, 0 picks one (%(default)s)")
    add("--otlp", metavar="URL", help="send traces there, like http://localhost:4318/v1/traces")
    add("--workers", type=int, default=4, metavar="N", help="how many (default: %(default)s)")
    add("--rate", type=_rate, default=12.0, metavar="N", help="orders a second (%(default)s)")
    add("--seed", type=int, default=1, metavar="N", help="of all chance (default: %(default)s)")
    add("--duration", type=float, metavar="SECONDS", help="how long (default: until Ctrl-C)")
    return parser


def _rate(text: str) -> float:
    number = float(text)
    if not 0 < number <= 1e6:
        raise ValueError
    return number


_rate.__name__ = "number above 0"  # as argparse calls it in an error


if __name__ == "__main__":
    raise SystemExit(main())
