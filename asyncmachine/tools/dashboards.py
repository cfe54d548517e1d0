"""``am grafana``: write a dashboard for machines as JSON that Grafana imports."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from asyncmachine.tools.command import Command, CommandError

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from asyncmachine.telemetry.grafana import Row
    from asyncmachine.telemetry.rows import Kind

__all__ = ["GRAFANA"]

_DETAILS: Final = """\
Writes a Grafana dashboard, with a row for each kind of machines: transitions, states over
time, errors, a heat map of the time in handlers, the queue. Import it in Grafana under
Dashboards, New, Import, and choose the Prometheus data source. The metrics come from
asyncmachine.telemetry.prometheus, in your program: docs/metrics.md.

A row shows the machines that have the first state of the schema, or those whose ids match
an expression after "=", or the machine itself if MODULE:NAME is one.

examples:
  am grafana app:Worker                          machines of one schema
  am grafana app:Worker=worker-.* app:mach       those of such ids, and one machine
  am grafana app:Worker --network -o board.json  with a row on networks, into a file
  am grafana --sim -o sim.json                   for am sim --metrics
"""


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "targets",
        nargs="*",
        metavar="MODULE:NAME[=IDS]",
        help="a States class, a mapping of states, a Schema or a Machine; IDS is a regular "
        "expression for the ids of its machines",
    )
    parser.add_argument("--network", action="store_true", help="add a row on networks")
    parser.add_argument("--sim", action="store_true", help="add the rows of the simulator, am sim")
    parser.add_argument("--title", help="the dashboard's name (the names of the rows)")
    parser.add_argument("-o", "--output", metavar="FILE", help="write it there, not to stdout")


def _run(arguments: Namespace) -> int:
    from asyncmachine.telemetry.grafana import dashboard
    from asyncmachine.telemetry.rows import kind_row, network_row

    kinds = [_kind(target) for target in arguments.targets]
    _check_names(kinds)
    rows = [kind_row(kind) for kind in kinds]
    title = arguments.title or " ".join(["asyncmachine:", *(kind.name for kind in kinds)])
    if arguments.sim:
        rows += _rows_of_the_simulator()
        title = arguments.title or "asyncmachine: pubsub simulator"
    if arguments.network:
        rows.append(network_row())
    if not rows:
        raise CommandError("name what to show, like app:Worker, or --network or --sim")
    text = json.dumps(dashboard(rows, title=title), indent=2) + "\n"
    if arguments.output is None:
        sys.stdout.write(text)
    else:
        _write(Path(arguments.output), text)
        print(f"{arguments.output}: {len(rows)} rows; import it in Grafana", file=sys.stderr)
    return 0


def _kind(target: str) -> Kind:
    """What ``MODULE:NAME=IDS`` means."""
    from asyncmachine import Machine
    from asyncmachine.telemetry.rows import Kind
    from asyncmachine.tools.targets import find_states

    wanted, _, ids = target.partition("=")
    try:
        re.compile(ids)
    except re.error as error:
        raise CommandError(f"{ids!r} is no regular expression: {error}") from error
    found = find_states(wanted)
    name = wanted.partition(":")[2]
    if isinstance(found, Machine):
        return Kind(name, found.states, ids or re.escape(found.id))
    return Kind(name, found.names, ids)


def _check_names(kinds: list[Kind]) -> None:
    """Refuse two rows of one name, for which Grafana would have only one variable."""
    seen: dict[str, str] = {}
    for kind in kinds:
        if kind.variable in seen:
            raise CommandError(f"two rows would be called {kind.name!r}: give one of them once")
        seen[kind.variable] = kind.name


def _rows_of_the_simulator() -> list[Row]:
    try:
        from examples.pubsub.dashboard import rows
    except ImportError as error:
        raise CommandError(
            f"the case study is not complete here ({error}); it comes with the source: in a "
            "checkout, pip install -e '.[examples]'"
        ) from error
    return rows()


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CommandError(f"{path} can not be written: {error.strerror}") from error


GRAFANA: Final = Command(
    name="grafana",
    summary="write a Grafana dashboard for machines",
    details=_DETAILS,
    add_arguments=_add_arguments,
    run=_run,
)
