"""``am inspect``: print the states, properties and relations of a schema or machine."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from asyncmachine.tools.command import Command

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

__all__ = ["INSPECT"]

_DETAILS: Final = """\
Prints every state of a schema with its properties and relations, and the clocks of a
machine. The module is imported to find it, so what it does when imported is done; a
module in the current directory is found too.

examples:
  am inspect examples.fsm:Turnstile         a States class of a module
  am inspect asyncmachine.states:Connected  a ready-made one
  am inspect app:mach                       a Machine, as app.py leaves it when imported
  am inspect app:STATES --json > app.json   plain data for Schema.from_dict()
"""


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "target",
        metavar="MODULE:NAME",
        help="a module, as after 'import', and the name in it of a States class, a mapping of "
        "states, a Schema or a Machine",
    )
    parser.add_argument("--json", action="store_true", help="print the schema as JSON instead")


def _run(arguments: Namespace) -> int:
    from asyncmachine import Machine, Schema
    from asyncmachine.tools.targets import find_states

    found = find_states(arguments.target)
    if arguments.json:
        schema = found if isinstance(found, Schema) else found.schema
        print(json.dumps(schema.to_dict(), indent=2))
    elif isinstance(found, Schema):
        with Machine(found, id=arguments.target) as machine:
            print(machine.inspect())
    else:
        print(found.inspect())
    return 0


INSPECT: Final = Command(
    name="inspect",
    summary="print the states, properties and relations of a schema or machine",
    details=_DETAILS,
    add_arguments=_add_arguments,
    run=_run,
)
