"""How a run is asked for."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Settings"]


class Settings(NamedTuple):
    """The options of ``am sim``.

    Attributes:
        peers: how many simulated peers there are at most, each with a host.
        topics: how many topics there are at most.
        processes: how many processes have hosts, besides the one that simulates; 0 puts all
            into this one.
        duration: seconds that the run lasts, by its clock.
        router: ``"gossip"`` or ``"flood"``.
        seed: of all that is random.
        speed: how much faster than the wall's the clock is; 0 as fast as it goes. Anything
            but 1 is virtual time, in one process.
        fail: how many hosts crash in a minute, on average.
        kill_process: after how many seconds a process is killed; None for never.
        deadline: seconds after which a message that has not arrived is missed.
        signed: whether messages are signed and checked.
        steady: whether all peers are there and in one topic from the beginning, and only
            messages are sent; else peers and topics come and go.
        log: a file for all transitions, or an empty text.
        metrics: port that serves metrics for Prometheus, those of the processes on the ports
            after it; 0 for none.

    """

    peers: int = 30
    topics: int = 20
    processes: int = 0
    duration: float = 600.0
    router: str = "gossip"
    seed: int = 1
    speed: float = 1.0
    fail: float = 0.0
    kill_process: float | None = None
    deadline: float = 5.0
    signed: bool = True
    steady: bool = False
    log: str = ""
    metrics: int = 0

    def as_text(self) -> dict[str, str]:
        """Give each option and its value, to be shown."""
        return {name: str(value) for name, value in self._asdict().items()}

    @property
    def virtual(self) -> bool:
        """Whether time is virtual."""
        return self.speed != 1.0
