"""Who is in which topic: what hosts advertise, for some time, and others find."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Final

from asyncmachine import Machine, State, States
from examples.pubsub.args import args_of

if TYPE_CHECKING:
    from asyncmachine import Event
    from examples.pubsub.site import Site

__all__ = ["Registry", "RegistryStates"]

# How many hosts are found at a time, at most.
MOST_FOUND: Final = 30

_MULTI: Final = State(multi=True, require="Start")


class RegistryStates(States):
    """What a registry is asked; each is an event."""

    Start = State()
    Advertise = _MULTI
    Withdraw = _MULTI
    Find = _MULTI


class Registry:
    """The registry, on the first site; others reach it through their carriers.

    Args:
        site: where it is.
        rng: picks among those that are found.

    Attributes:
        machine: the machine.

    """

    def __init__(self, site: Site, rng: Random | None = None) -> None:
        self._site = site
        self._rng = rng or Random(0)
        # By topic and name of the host: its site, and when the entry ends.
        self._entries: dict[str, dict[str, tuple[int, float]]] = {}
        self.machine = Machine(RegistryStates, id="registry", handlers=self)
        self.machine.add("Start")
        site.seen_to["registry"] = self._asked

    def _asked(self, args: dict[str, object]) -> None:
        self.machine.add(str(args["ask"]), **args)

    def Advertise_state(self, event: Event) -> None:
        args = args_of(event)
        until = self._site.clock.now() + args["ttl"]
        entries = self._entries.setdefault(args["topic"], {})
        entries.pop(args["host"], None)
        entries[args["host"]] = (args["site"], until)

    def Withdraw_state(self, event: Event) -> None:
        self._entries.get(args_of(event)["topic"], {}).pop(args_of(event)["host"], None)

    def Find_state(self, event: Event) -> None:
        """Send what is found back to where the question came from."""
        args, now = args_of(event), self._site.clock.now()
        entries = self._entries.get(args["topic"], {})
        names = [name for name, (_, until) in entries.items() if until > now]
        if len(names) < len(entries):
            for name in [name for name, (_, until) in entries.items() if until <= now]:
                del entries[name]
        if args["host"] in entries:
            names.remove(args["host"])
        if len(names) > MOST_FOUND:
            names = self._rng.sample(names, MOST_FOUND)
        found = [(name, entries[name][0]) for name in names]
        self._site.send(args["site"], "found", host=args["host"], topic=args["topic"], found=found)

    def forget_site(self, number: int) -> None:
        """Forget the hosts of a site that is gone; inside ``eval`` only."""
        for entries in self._entries.values():
            for name in [name for name, (site, _) in entries.items() if site == number]:
                del entries[name]
