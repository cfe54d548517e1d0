"""`RemoteMachine`: a machine that lives in another process.

Reading and waiting work on a mirror of its clocks, at local speed. Mutations are sent to
where it lives, and answered from there.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar
from weakref import WeakValueDictionary, ref

from asyncmachine.errors import HandlerError, MachineError, hint
from asyncmachine.handlers import Binding, collect, parse
from asyncmachine.machine import Machine
from asyncmachine.mirror import Mirror
from asyncmachine.net import wire
from asyncmachine.net.client import Home
from asyncmachine.net.errors import ConnectionLostError, NotSerialisableError, ProtocolError
from asyncmachine.net.functions import name_of
from asyncmachine.net.gate import Gate
from asyncmachine.net.listenings import Listenings
from asyncmachine.net.outlet import Outlet, Request
from asyncmachine.net.piping import InboundPipe, lay_between
from asyncmachine.net.schemas import packed, unpacked
from asyncmachine.net.serial import Serial
from asyncmachine.net.states import ConnectionStates
from asyncmachine.net.statistics import Lag, LinkStatistics
from asyncmachine.net.values import rebuild_error
from asyncmachine.oneshot import Told, call_all, deadline_after, time_left
from asyncmachine.relations import ADD, REMOVE, SET
from asyncmachine.results import EXECUTED, QUEUED, Canceled, Result, Ticket
from asyncmachine.running import in_handler
from asyncmachine.schema import EXCEPTION
from asyncmachine.tracing import PROPAGATORS, Tracer, Tracers, trace_here
from asyncmachine.transition import transition_here

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType
    from typing import Literal, Self

    from asyncmachine.api import MachineAPI
    from asyncmachine.handlers import Handler
    from asyncmachine.net.client import Call, Client
    from asyncmachine.net.link import Link
    from asyncmachine.net.listening import Listening
    from asyncmachine.pipes import Pipe
    from asyncmachine.transition import Cause, Event
    from asyncmachine.waiting import StateContext, Waiter

__all__ = ["Place", "RemoteMachine"]

_T = TypeVar("_T")
# What a frame has besides the args, at most: bytes.
_FRAME_ROOM: Final = 1024
# What tells how clocks have moved.
_CLOCKS: Final = (wire.Done, wire.Changed)
# How long closing waits for a listener to the last news, in seconds.
_CLOSING: Final = 1.0


class Place:
    """Where machines live, for those who have to go there themselves.

    Attributes:
        address: where its process can be reached by its siblings.
        network: what the siblings have in common.

    """

    __slots__ = ("address", "network")

    def __init__(self, address: str, network: object) -> None:
        self.address = address
        self.network = network


class RemoteMachine(Mirror):
    """A machine in another process, as `connect` and ``Network.spawn`` return it.

    It reads, mutates, waits, listens and pipes like a `Machine`. Reading is answered from
    a mirror of the clocks, without a round trip. A mutation takes one round trip, and then
    the mirror already shows what it changed; inside a handler of any machine it is sent
    without waiting. See the manual, "Networks".

    Attributes:
        connection: a local machine with the states of `ConnectionStates`.
        place: where it lives, if it belongs to a network.

    """

    __slots__ = (
        "_behind",
        "_callbacks",
        "_client",
        "_found",
        "_gate",
        "_hearing",
        "_home",
        "_idlers",
        "_lag",
        "_latest_source",
        "_listenings",
        "_outlet",
        "_owns_client",
        "_pipe_sources",
        "_tracers",
        "_why_gone",
        "connection",
        "place",
    )

    def __init__(
        self,
        client: Client,
        opened: wire.Opened,
        *,
        owns_client: bool = False,
        place: Place | None = None,
    ) -> None:
        schema = unpacked(opened.digest, opened.schema)
        super().__init__(opened.machine, schema)
        self.connection = Machine(ConnectionStates, id=f"{opened.machine}-connection")
        self.connection.add("Connecting")
        self.place = place
        self._client = client
        self._owns_client = owns_client
        self._home = Home(client.link, opened.channel)
        self._gate = Gate()  # shut while the machine is out of reach
        self._outlet = Outlet(client.outbox_limit, self._refused)
        self._found: dict[tuple[str, ...], tuple[int, ...]] = {}
        self._hearing = Serial()
        self._listenings = Listenings(self, client.values)
        # Answers that say more than the mirror shows: they wait for the whole clock.
        self._behind: list[tuple[Call, wire.Message]] = []
        self._idlers: list[Callable[[], object]] = []
        self._latest_source: Callable[[], object] = lambda: None
        self._pipe_sources: WeakValueDictionary[str, MachineAPI] = WeakValueDictionary()
        self._callbacks: list[Callable[[RemoteMachine], object]] = []
        self._tracers: dict[int, Tracer] = {}
        self._why_gone = ""
        self._lag = Lag()
        self.moved_in(opened, client.link, afresh=False)

    # Mutations ----------------------------------------------------------------------------

    def add(self, /, *states: str, **args: object) -> Result:
        """Activate states; see `Machine.add`.

        Returns:
            The final result, after one round trip; a queued one inside a handler.

        Raises:
            UnknownStateError: for a name that the schema lacks.
            NotSerialisableError: naming the arg that can not travel.
            NotAllowedError: if the server does not allow it.
            ConnectionLostError: if the process goes away before it answers.
            TimeoutError: if there was no answer within ``call_timeout``; the mutation may
                still be carried out.

        """
        return self._request(ADD, states, args)

    def remove(self, /, *states: str, **args: object) -> Result:
        """Deactivate states; see `add`."""
        return self._request(REMOVE, states, args)

    def set(self, /, *states: str, **args: object) -> Result:
        """Activate states and deactivate all others; see `add`."""
        return self._request(SET, states, args)

    def toggle(self, /, *states: str, **args: object) -> Result:
        """Remove states if the mirror shows all of them active, else add them; see `add`."""
        return self._request(REMOVE if self.is_active(*states) else ADD, states, args)

    def add_error(self, /, error: BaseException | str, *states: str, **args: object) -> Result:
        """Add ``Exception`` with an error, which arrives as a `RemoteError`; see `add`."""
        if isinstance(error, str):
            error = MachineError(error)
        if not isinstance(error, BaseException):
            msg = f"an exception or a text is needed, not {error!r}"
            raise TypeError(msg)
        return self._request(ADD, (EXCEPTION, *states), {**args, "error": error})

    def send(
        self, kind: Literal["add", "remove", "set"], /, *states: str, **args: object
    ) -> Result:
        """Request a mutation without waiting for it.

        It keeps order with everything else that is sent, and waits only while the link's
        window is full; inside a handler never.

        Returns:
            A queued result, which can be waited for; a canceled one if the machine is
            gone, or the outbox is full.

        Raises:
            UnknownStateError: for a name that the schema lacks.
            ValueError: for another kind.
            NotSerialisableError: naming the arg that can not travel.

        """
        if kind not in wire.NUMBERS:
            msg = f"unknown kind of mutation {kind!r}{hint(kind, wire.KINDS)}"
            raise ValueError(msg)
        return self._send(kind, states, args)

    def _request(self, kind: str, states: tuple[str, ...], args: dict[str, object]) -> Result:
        if in_handler():
            return self._send(kind, states, args)
        positions = self._found.get(states) or self._positions(states)
        client = self._client
        packed = self._packed(args) if args else b""
        if self._disposed:
            return Canceled(self._why_gone)
        left: float | None = None
        try:
            if not self._gate.is_open:
                deadline = deadline_after(client.call_timeout)
                self.await_home()
                left = time_left(deadline)
            call = client.begin(remote=self)
        except ConnectionLostError:
            return Canceled(self._why_gone or f"{client.name} is gone")
        origin = _traced() if PROPAGATORS else None
        why = self._outlet.call(Request(call, wire.NUMBERS[kind], positions, packed, origin))
        if why:
            call.answer(wire.Canceled(call.number, why))
        reply = client.finish(call, left)
        return Canceled(reply.why) if isinstance(reply, wire.Canceled) else EXECUTED

    def _send(self, kind: str, states: tuple[str, ...], args: dict[str, object]) -> Result:
        positions = self._found.get(states) or self._positions(states)
        packed = self._packed(args) if args else b""
        if self._disposed:
            return Canceled(self._why_gone)
        ticket = Ticket(self)
        origin = None
        inside = in_handler()
        if inside and (tx := transition_here()) is not None:
            origin = wire.Origin(tx.machine.id, tx.id, (), trace_here(tx))
        elif PROPAGATORS:
            origin = _traced()
        request = Request(None, wire.NUMBERS[kind], positions, packed, origin, ticket)
        why = self._outlet.send(request, wait=not inside, timeout=self._client.call_timeout)
        return Canceled(why) if why else ticket.result()

    def _positions(self, states: tuple[str, ...]) -> tuple[int, ...]:
        positions = tuple(self.schema.find(states))
        if len(self._found) < 1024:
            self._found[states] = positions
        return positions

    def _packed(self, args: Mapping[str, object]) -> bytes:
        packed = self._client.values.pack(args)
        most = self._client.peer_max_frame - _FRAME_ROOM
        if len(packed) > most:
            largest = max(args, key=lambda name: len(self._client.values.pack({name: args[name]})))
            raise NotSerialisableError(
                f"the arg {largest} is too large to travel: all args have {len(packed)} bytes, "
                f"and {self._client.name} takes at most {most}"
            )
        return packed

    def can_add(self, /, *states: str, **args: object) -> Result:
        """Ask whether ``add`` would be executed, where the machine lives."""
        return self._ask(ADD, states, args)

    def can_remove(self, /, *states: str, **args: object) -> Result:
        """Ask whether ``remove`` would be executed, where the machine lives."""
        return self._ask(REMOVE, states, args)

    def can_set(self, /, *states: str, **args: object) -> Result:
        """Ask whether ``set`` would be executed, where the machine lives."""
        return self._ask(SET, states, args)

    def _ask(self, kind: str, states: tuple[str, ...], args: dict[str, object]) -> Result:
        positions = self._positions(states)
        packed = self._packed(args)
        if self._disposed:
            return Canceled(self._why_gone)
        number = wire.NUMBERS[kind]
        reply = self._call(lambda call, at: wire.Ask(at, call, number, positions, packed))
        return Canceled(reply.why) if isinstance(reply, wire.Canceled) else EXECUTED

    def eval(self, fn: Callable[[Machine], _T], timeout: float | None = None) -> _T:
        """Run an importable function where the machine lives, with the machine as argument.

        Args:
            fn: takes the `Machine`; runs alone, between two transitions.
            timeout: seconds to wait for the machine's turn at most; ``call_timeout`` if not
                given.

        Returns:
            What it returned, as far as that can travel.

        Raises:
            NotSerialisableError: if the function can not be imported, or its value not travel.
            NotAllowedError: unless the server allows it.
            RemoteError: what the function raised.
            TimeoutError: if its turn did not come in time.
            ConnectionLostError: if the process is gone.

        """
        name = name_of(fn)
        patience = self._client.call_timeout
        within = patience if timeout is None else timeout
        reply = self._call(lambda call, at: wire.Eval(at, call, name, within), within + patience)
        assert isinstance(reply, wire.Value)
        value: _T = self._client.values.unpack_value(reply.value)  # type: ignore[assignment]
        return value

    def sync(self, timeout: float | None = None) -> None:
        """Wait until the mirror shows all that the machine had done when asked.

        Raises:
            ConnectionLostError: if the process is gone.
            TimeoutError: if it did not answer in time.

        """
        self._call(lambda call, at: wire.Sync(at, call), timeout)

    def _call(
        self, make: Callable[[int, int], wire.Message], timeout: float | None = None
    ) -> wire.Message:
        """Ask the machine's process; ``make`` gets the numbers of the call and the machine."""
        patience = self._client.call_timeout if timeout is None else timeout
        deadline = deadline_after(patience)
        home = self.await_home(patience)
        call = self._client.begin(home.link, self)
        self._client.submit(call, home.link, make(call.number, home.channel))
        return self._client.finish(call, time_left(deadline))

    def await_home(self, timeout: float | None = None) -> Home:
        """Wait until the machine can be reached.

        Args:
            timeout: seconds to wait at most; ``call_timeout`` if not given.

        Raises:
            ConnectionLostError: if it is gone for good.
            TimeoutError: if that took too long.

        """
        gate = self._gate
        if not gate.is_open:
            patience = self._client.call_timeout if timeout is None else timeout
            if not gate.wait(patience):
                raise self._client.unreachable(patience)
        if self._disposed:
            raise ConnectionLostError(self._why_gone)
        return self._home

    def finish(self, call: Call) -> None:
        """Wait for the answer of a call."""
        self._client.finish(call)

    def tell(self, make: Callable[[int], wire.Message]) -> None:
        """Tell the machine's process something, if it is there."""
        home = self._home
        if not self._disposed:
            try:
                home.link.post(make(home.channel))
            except ConnectionLostError:
                pass

    # Reading --------------------------------------------------------------------------------

    @property
    def queue_length(self) -> int:
        """How many mutations wait here to be sent."""
        return len(self._outlet)

    def is_queued(self, kind: str, *states: str) -> bool:
        """Whether such a mutation waits here to be sent."""
        wanted = tuple(self.schema.find(states))
        number = wire.NUMBERS.get(kind)
        return any(each.kind == number and each.states == wanted for each in self._outlet.kept)

    def statistics(self) -> LinkStatistics:
        """Give what went over the link to its process, which its machines there share."""
        return self._client.statistics()

    def mirror_lag(self) -> float | None:
        """Give how many seconds old what the mirror shows may be. Does not wait.

        Each call asks the machine's process to answer when all has been told, unless such a
        question is under way.

        Returns:
            What the last question took to be answered, or for how long there has been no
            answer, if that is longer. ``None`` before anything is known.

        """
        return self._lag.measure(self._ask_home)

    def _ask_home(self, answered: Callable[[Call], object]) -> bool:
        """Have a function called when all is told; false if the machine is out of reach."""
        if self._disposed or not self._gate.is_open:
            return False
        home = self._home
        try:
            call = self._client.begin(home.link, self)
            call.when_done(answered)
            self._client.submit(call, home.link, wire.Sync(home.channel, call.number))
        except ConnectionLostError:
            return False
        return True

    @property
    def in_transition(self) -> bool:
        """False: what the machine is doing at this moment is not known here."""
        return False

    @property
    def transition(self) -> None:
        """``None``: what the machine is doing at this moment is not known here."""
        return

    def when_queue_empty(self, *, ctx: StateContext | None = None) -> Waiter:
        """Wait until the machine's queue has been drained, where it lives."""
        waiter, tell = self.when_told(ctx=ctx)
        self._ask_for_rest(tell)
        return waiter

    def _ask_for_rest(self, tell: Callable[[], object]) -> None:
        """Have a function called once the machine's queue is drained, in whatever process."""
        home = self._home

        def answered(call: Call) -> None:
            if call.error is None:
                tell()
            else:  # the process has gone: ask the next
                self._idlers.append(tell)

        if self._disposed:
            return
        try:
            call = self._client.begin(home.link, self)
            call.when_done(answered)
            self._client.submit(call, home.link, wire.Sync(home.channel, call.number, idle=True))
        except ConnectionLostError:
            self._idlers.append(tell)

    def when_args(
        self, state: str, args: Mapping[str, object], *, ctx: StateContext | None = None
    ) -> Waiter:
        """Wait for the next activation of a state that comes with all of these args.

        The first such wait for a state takes a round trip, to hear of its activations;
        inside a handler it hears of what is requested afterwards over the same link.

        Raises:
            UnknownStateError: for a name that the schema lacks.
            ConnectionLostError: if the process goes away before it answers.
            TimeoutError: if it did not answer in time.

        """
        waiter = super().when_args(state, args, ctx=ctx)
        if not self._disposed and not waiter.is_set():
            try:
                self._listenings.hear_activations(self.schema.position(state))
            except BaseException:
                if not self._disposed:
                    waiter.cancel()
                    raise
        return waiter

    # Listening ------------------------------------------------------------------------------

    def bind(self, handlers: Mapping[str, Handler] | object) -> Binding:
        """Listen with final handlers; a machine elsewhere can not be vetoed from here.

        Raises:
            HandlerError: for a negotiation handler, or what fits no state.

        """
        found = collect(self.schema, handlers, ())
        return self._listen({name: [call] for name, call in found.calls.items()})

    def on(self, name: str, fn: Handler) -> Binding:
        """Have a function hear of one final handler name.

        It is called with the `Event` on a background thread, in order.

        Raises:
            HandlerError: for the name of a negotiation handler, or one that fits no state.

        """
        return self._listen({name: [fn]})

    def listen(
        self,
        listeners: Mapping[str, Handler],
        started: Callable[[], object] | None = None,
        *,
        pipes: bool = False,
    ) -> Binding:
        """Have functions hear of several handler names; ``started`` is called once they do."""
        binding = self._listen({name: [fn] for name, fn in listeners.items()})
        if started is not None:
            started()
        return binding

    def _listen(self, listeners: dict[str, list[Handler]]) -> Binding:
        faults = [fault for name in listeners if (fault := self._fault_of(name))]
        if faults:
            raise HandlerError(f"these can not listen to {self.id}", faults)
        return self._binding(self._begin(listeners))

    def _begin(self, listeners: dict[str, list[Handler]]) -> int:
        return 0 if self._disposed else self._listenings.begin(listeners)

    def _binding(self, number: int) -> Binding:
        return Binding(partial(self._listenings.end, number))

    def ask_for(self, listening: Listening) -> Call | None:
        """Ask the machine's process for events; None if nobody is to wait for the answer."""
        home = self._home
        if in_handler():
            home.link.post(listening.wish(home.channel, 0))
            return None
        call = self._client.begin(home.link, self)
        self._client.submit(call, home.link, listening.wish(home.channel, call.number))
        return call

    def _fault_of(self, name: str) -> str:
        meanings = parse(self.schema, name)
        if not meanings:
            near = hint(name, [f"{state}_state" for state in self.schema.names])
            return f"{name} matches no state{near}"
        if not any(meaning.final for meaning in meanings):
            return f"{name} is a negotiation handler; only _state and _end can be listened to"
        return ""

    def subscribe_pipe(
        self,
        listeners: Mapping[str, Handler],
        bring_up: tuple[int, ...],
        over: Callable[[], object],
    ) -> Binding:
        """Have a pipe hear of what it carries; ``over`` is called when it was too slow."""
        number = self._listenings.begin(
            {name: [fn] for name, fn in listeners.items()},
            pipe=True,
            bring_up=bring_up,
            over=over,
        )
        return self._binding(number)

    def consumed(self, number: int, read: int) -> None:
        """Let the machine's process know how many events have been read."""
        self.tell(lambda channel: wire.Consumed(channel, number, read))

    def add_tracer(self, tracer: Tracer) -> Binding:
        """Add an observer: it hears of the beginning and the end, and of each transition.

        What it is told is a `RemoteTransition`; handlers, queue and steps stay at home.
        """
        tracers = Tracers((tracer,))
        tracers.tell("machine_init", self)

        def tell(event: Event) -> None:
            for hook in ("transition_init", "transition_start", "transition_end"):
                tracers.tell(hook, event.transition)

        number = self._begin({"*": [tell]})
        self._tracers[number] = tracer

        def leave() -> None:
            self._tracers.pop(number, None)
            self._listenings.end(number)

        return Binding(leave)

    @property
    def tracers(self) -> tuple[Tracer, ...]:
        """The observers."""
        return tuple(self._tracers.values())

    # Pipes ----------------------------------------------------------------------------------

    def deliver(
        self,
        kind: str,
        states: tuple[str, ...],
        args: dict[str, object],
        passed: tuple[str, ...],
        cause: Cause | None = None,
        trace: str = "",
    ) -> Result:
        """Send a mutation that a pipe forwards; inside a handler without waiting."""
        positions = self._found.get(states) or self._positions(states)
        if self._disposed:
            return Canceled(self._why_gone)
        packed = b""
        if args:
            try:
                packed = self._packed(args)
            except NotSerialisableError as error:
                raise NotSerialisableError(
                    f"an activation for {' '.join(states)} of {self.id} was not piped: {error}"
                ) from error
        tx = transition_here()
        if tx is None:
            machine_id, transition_id = cause or ("", 0)
            origin = wire.Origin(machine_id, transition_id, passed, trace)
            wait = not in_handler()
        else:
            origin = wire.Origin(tx.machine.id, tx.id, passed, trace_here(tx))
            wait = False
        request = Request(None, wire.NUMBERS[kind], positions, packed, origin, None, passed[-1])
        why = self._outlet.send(request, wait=wait, timeout=None)
        return Canceled(why) if why else QUEUED

    def hand_over(self, source: object) -> None:
        """Remember which machine to tell if something that it piped is refused."""
        if self._latest_source() is not source:
            self._latest_source = ref(source)
            self._pipe_sources[getattr(source, "id", "")] = source  # type: ignore[assignment]

    def lay_pipe(
        self,
        target: MachineAPI,
        routes: list[tuple[str, str]],
        kinds: tuple[str, ...],
        *,
        sync: bool,
    ) -> Pipe | None:
        """Lay a pipe that begins where this machine lives."""
        direct = lay_between(self, target, routes, kinds, sync=sync)
        if direct is not None:
            return direct
        made = InboundPipe(self, target)
        made.lay(routes, kinds, sync=sync)
        return made

    def _refused(self, error: Exception, source_id: str) -> None:
        source = self._pipe_sources.get(source_id) if source_id else None
        if source is not None:
            source.add_error(error)
        else:
            self.connection.send("add", "Refused", error=error)

    # What comes from home -------------------------------------------------------------------

    def hear(self, message: wire.Message, call: Call | None = None) -> None:
        """Take note of what the machine's process tells, in order."""
        self._hearing.do(self._heed, message, call)

    def _heed(self, message: wire.Message, call: Call | None) -> None:
        try:
            if isinstance(message, _CLOCKS):
                self._follow(message)
                if call is not None and self.total < message.total:
                    self._behind.append((call, message))
                    call = None
            elif isinstance(message, wire.Applied):
                self._outlet.applied(message.count, message.refused)
            elif isinstance(message, wire.Event):
                self._listenings.happened(message)
            elif isinstance(message, wire.Snapshot):
                self._check_whole(message.ticks, message.order)
                self.replace(message.ticks, message.order)
                self._take_error(message.error)
                self._caught_up()
            elif isinstance(message, wire.Overflowed):
                self._listenings.overflowed(message.number)
            elif isinstance(message, wire.Gone):
                self._end(f"the machine {self.id} is disposed")
        finally:
            if call is not None:
                call.answer(message)

    def _follow(self, message: wire.Done | wire.Changed) -> None:
        most = len(self.schema.names)
        moved, order = message.moved, message.order
        if len(moved) & 1 or not _within(moved[::2], most) or (order and not _within(order, most)):
            raise ProtocolError(f"clocks of {self.id} that it has not")
        self.follow(moved, order)
        if self.total < message.total:
            self.tell(wire.Whole)

    def _check_whole(self, ticks: list[int], order: list[int]) -> None:
        active = {i for i, tick in enumerate(ticks) if tick & 1}
        if len(ticks) != len(self.schema.names) or set(order) != active:
            raise ProtocolError(f"a clock of {self.id} that does not fit its schema")

    def _caught_up(self) -> None:
        behind, self._behind = self._behind, []
        for call, answer in behind:
            call.answer(answer)

    def _take_error(self, error: wire.ErrorInfo | None) -> None:
        self.error = None if error is None else rebuild_error(error)

    # The connection -------------------------------------------------------------------------

    def moved_in(self, opened: wire.Opened, link: Link, *, afresh: bool) -> None:
        """Take note of where the machine lives now.

        Args:
            opened: what its process told.
            link: how it is reached.
            afresh: whether it is another process, and so another life.

        """
        if opened.digest != packed(self.schema)[0]:
            raise ProtocolError(f"the schema of {self.id} has changed")
        if opened.ticks:
            self._check_whole(opened.ticks, opened.order)
            self._hearing.do(partial(self._show, opened, afresh=afresh))
        self._home = Home(link, opened.channel)
        self._client.join(opened.channel, self)
        if afresh:
            self._listenings.ask_again(opened.channel, self._client.post)
        self._arrived(afresh=afresh)
        if afresh:
            idlers, self._idlers = self._idlers, []
            for tell in idlers:
                self._ask_for_rest(tell)

    def _show(self, opened: wire.Opened, *, afresh: bool) -> None:
        self.replace(opened.ticks, opened.order, anew=afresh)
        self._take_error(opened.error)
        self._caught_up()

    def _arrived(self, *, afresh: bool) -> None:
        self._outlet.resume(self._home.link, self._home.channel, afresh=afresh)
        self._gate.open()
        self.connection.add("Connected")

    def resumed(self, link: Link) -> None:
        """Take note that the connection to the same process is up again."""
        self._home = Home(link, self._home.channel)
        self._arrived(afresh=False)

    def paused(self, error: Exception | None = None) -> None:
        """Take note that the connection is down, perhaps not for good.

        Args:
            error: why, if that is known.

        """
        self._gate.shut()
        if self._disposed:  # lost at the same time: nobody is to wait for it
            self._gate.open()
        self._outlet.pause()
        self.connection.add("Disconnected", error=error)

    def connecting(self) -> None:
        """Take note that the connection is being made again."""
        self.connection.add("Connecting")

    def lost(self, why: str) -> None:
        """Take note that the machine is out of reach for good."""
        self._why_gone = self._why_gone or why
        self._disposed = True
        if not self.connection.is_active("Disconnected"):
            self.connection.add("Disconnected", error=ConnectionLostError(why))
        end = Told()
        self._hearing.do(self._end, why, end)
        if not in_handler():
            end.wait(_CLOSING)  # unless somebody hears of something just now, it is over

    def _end(self, why: str, end: Told | None = None) -> None:
        if not self._finished:
            self._why_gone = self._why_gone or why
            self._outlet.end(self._why_gone)
            self.retire()
            self._caught_up()
            self._gate.open()
            if self._tracers:
                Tracers(self._tracers.values()).tell("machine_dispose", self)
            self._listenings.close()
            self._run_callbacks()
        if end is not None:
            end.tell()

    # Life -----------------------------------------------------------------------------------

    @property
    def is_disposed(self) -> bool:
        """Whether mutations are refused: the machine is disposed, or out of reach for good."""
        return self._disposed

    def on_dispose(self, callback: Callable[[Self], object]) -> Binding:
        """Have a function called when the machine is disposed or out of reach for good."""
        callbacks = self._callbacks
        callbacks.append(callback)  # type: ignore[arg-type]  # it is called with self only
        if self._disposed:
            self._run_callbacks()

        def undo() -> None:
            if callback in callbacks:
                callbacks.remove(callback)

        return Binding(undo)

    def _run_callbacks(self) -> None:
        call_all(self._callbacks, self)

    def dispose(self, timeout: float | None = None) -> None:
        """Dispose the machine where it lives; inside a handler without waiting for that."""
        if self._disposed:
            return
        if in_handler():
            self.tell(lambda channel: wire.Dispose(channel, 0, timeout))
            return
        patience = self._client.call_timeout + (timeout or 0)
        try:
            self._call(lambda call, at: wire.Dispose(at, call, timeout), patience)
        except ConnectionLostError:
            return

    def close(self) -> None:
        """End the connection only; the machine lives on."""
        why = f"the connection to {self.id} was closed"
        self._client.leave(self._home.channel)
        if self._owns_client:
            self._client.lose(ConnectionLostError(why))
        self.lost(why)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[object, ...]:
        if self.place is None:
            raise NotSerialisableError(f"the proxy of {self.id} can only travel within its network")
        return _revive, (self.place.address, self.id)

    def _fork_failed(self, error: Exception) -> None:
        self.add_error(error)

    def __repr__(self) -> str:
        return f"<RemoteMachine {self.id} {self}>"


def _within(positions: list[int], most: int) -> bool:
    return not positions or (min(positions) >= 0 and max(positions) < most)


def _revive(address: str, machine_id: str) -> RemoteMachine:
    """Make a proxy in the process of a network that it has travelled to."""
    from asyncmachine.net.host import proxy

    return proxy(address, machine_id)


def _traced() -> wire.Origin | None:
    """The trace that the current thread is in, if it is in one, for what it requests."""
    trace = trace_here(None)
    return wire.Origin(trace=trace) if trace else None
