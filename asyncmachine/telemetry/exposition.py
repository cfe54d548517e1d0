"""The text that Prometheus reads, written several times as quickly as the library does it.

`generate` gives the very bytes that ``prometheus_client.generate_latest`` gives. Metrics of
`MachineCollector` are written here; all others are left to the library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

try:
    from prometheus_client import generate_latest
    from prometheus_client.utils import floatToGoString
except ImportError as error:  # pragma: no cover - the tests need it
    msg = f"this needs {error.name}: pip install 'asyncmachine[prometheus]'"
    raise ImportError(msg, name=error.name) from error

from asyncmachine.telemetry.families import empty_families

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client import Metric
    from prometheus_client.registry import Collector

__all__ = ["generate"]

_OURS: Final = frozenset(each.name for each in empty_families())
# From here on Go writes numbers with an exponent.
_LARGE: Final = 1_000_000


class _One:
    """A registry of one metric."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def collect(self) -> Iterable[Metric]:
        return (self._metric,)


def generate(registry: Collector) -> bytes:
    """Give all metrics of a registry as Prometheus reads them.

    Args:
        registry: a registry, or anything else that collects.

    Returns:
        The same as ``prometheus_client.generate_latest(registry)``.

    Example:
        >>> from prometheus_client import CollectorRegistry, generate_latest
        >>> from asyncmachine import Machine, State
        >>> from asyncmachine.telemetry.prometheus import MachineCollector
        >>> registry = CollectorRegistry()
        >>> with MachineCollector(Machine({"Foo": State()}), registry=registry):
        ...     generate(registry) == generate_latest(registry)
        True

    """
    return b"".join(
        _written(metric) if metric.name in _OURS else generate_latest(_One(metric))
        for metric in registry.collect()
    )


def _written(metric: Metric) -> bytes:
    name = f"{metric.name}_total" if metric.type == "counter" else metric.name
    lines = [f"# HELP {name} {metric.documentation}\n# TYPE {name} {metric.type}\n"]
    escaped = _Escaped()
    for sample in metric.samples:
        labels = sample.labels
        texts = [f'{label}="{escaped[labels[label]]}"' for label in sorted(labels)]
        value = sample.value
        small = type(value) is int and 0 <= value < _LARGE
        text = f"{value}.0" if small else floatToGoString(value)  # type: ignore[no-untyped-call]
        lines.append(f"{sample.name}{{{','.join(texts)}}} {text}\n")
    return "".join(lines).encode()


class _Escaped(dict[str, str]):
    """Values of labels as they are written, each made once."""

    def __missing__(self, value: str) -> str:
        made = value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
        self[value] = made
        return made
