"""Topics of the simulation: a machine each, without handlers, moved from counters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from asyncmachine import Machine, State, States

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ACTIVE_SECONDS", "PEAK", "Topic", "TopicStates", "topic_name"]

# How long after a message a topic counts as active, in seconds, and from how many peers on
# as peaking.
ACTIVE_SECONDS: Final = 60.0
PEAK: Final = 10

_ADJECTIVES: Final = ("Lost", "Silent", "Golden", "Last", "Paper", "Distant", "Broken", "Endless")
_NOUNS: Final = ("Harbour", "Summer", "Letter", "Orchard", "Signal", "Winter", "Garden", "Train")


class TopicStates(States):
    """How a topic is doing."""

    Stale = State(auto=True)
    HasPeers = State()
    Active = State(remove="Stale")
    Peaking = State(remove="Stale", require="HasPeers")


class Topic:
    """One topic, and who is in it as far as the simulator knows.

    Attributes:
        name: its name.
        members: peers that have joined.
        coming: peers that were asked to join.
        machine: the machine.

    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.members: dict[str, None] = {}
        self.coming: dict[str, None] = {}
        self.last_message = float("-inf")
        self.machine = Machine(TopicStates, id=f"sim-t-{name}")
        self.machine.add("Stale")

    def refresh(self, now: float) -> None:
        """Move the machine to what the counters say."""
        wanted = {
            "HasPeers": bool(self.members),
            "Active": now - self.last_message <= ACTIVE_SECONDS,
            "Peaking": len(self.members) >= PEAK,
        }
        on = [name for name, yes in wanted.items() if yes and not self.machine.is_active(name)]
        off = [name for name, yes in wanted.items() if not yes and self.machine.is_active(name)]
        if off:
            self.machine.remove(*off)
        if on:
            self.machine.add(*on)


def topic_name(number: int, taken: Sequence[str]) -> str:
    """Give a name like that of a film.

    Example:
        >>> topic_name(1, [])
        'Silent-Harbour'

    """
    name = f"{_ADJECTIVES[number % 8]}-{_NOUNS[number // 8 % 8]}"
    return name if name not in taken and number < 64 else f"{name}-{number}"
