"""Typical code of users. mypy and pyright, both strict, must have nothing to say about it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging

# assert_type is what makes this a test: the checker has to infer exactly that type.
from typing import TYPE_CHECKING, assert_type

from asyncmachine import (
    Binding,
    ContextExpired,
    Event,
    LogLevel,
    Machine,
    MachineError,
    Mutation,
    Result,
    Schema,
    SchemaError,
    State,
    StateContext,
    States,
    Tracer,
    Transition,
    UnknownStateError,
    Waiter,
    as_future,
    group,
    pipe,
    pipe_all,
    wait_all,
    wait_any,
)
from asyncmachine.states import Basic, Connected

if TYPE_CHECKING:
    from asyncmachine import MachineAPI

# -- declaring states --------------------------------------------------------------------


class File(States):
    Downloading = State(remove="Downloaded")
    Downloaded = State(remove=Downloading)
    Processing = State(auto=True, require=Downloaded)
    Failed = State(multi=True, after=["Downloading", Processing])


class Server(Basic, Connected):
    Ready = Basic.Ready.extend(require="Connected")
    Wider = State(require="Start").extend(add=("Ready",), multi=True)


LIGHTS = group("Red", "Green")

MAPPING = {
    "Red": State(remove=LIGHTS),
    "Green": State(remove=LIGHTS),
    "On": State(add=("Red",), require=(), remove=["Off"], after="Off", auto=False),
    "Off": State(remove={"On"}),
}


def declarations() -> None:
    name: str = File.Processing
    assert_type(name.upper(), str)
    assert_type(File.names, tuple[str, ...])
    schema = Schema(File)
    assert_type(schema, Schema)
    assert_type(schema.names, tuple[str, ...])
    Schema.from_dict(schema.to_dict())
    Machine(schema)
    Machine(MAPPING)
    Machine({"Foo": State()})


# -- handlers ----------------------------------------------------------------------------


class FileHandlers:
    def __init__(self, path: str) -> None:
        self.path = path

    def Downloading_enter(self, event: Event) -> bool:
        event.data["checked"] = True
        return event.args.get("url") is not None

    def Downloading_state(self, event: Event) -> None:
        event.fork(self.download, event.args["url"])

    def download(self, ctx: StateContext, url: object) -> None:
        while not ctx.expired:
            ctx.check()
            if not ctx.sleep(0.1):
                return

    def Any_state(self, event: Event) -> None:
        mutation = event.mutation
        assert_type(mutation, Mutation)
        assert_type(mutation.states, tuple[str, ...])
        assert_type(mutation.auto, bool)
        assert_type(event.name, str)
        assert_type(event.expired, bool)
        assert_type(event.transition, Transition)
        event.machine.add("Processing")


def veto(event: Event) -> bool | None:
    return None


def bindings(mach: Machine) -> None:
    binding = mach.bind(FileHandlers("a.txt"))
    assert_type(binding, Binding)
    binding.unbind()
    mach.bind({"Downloading_enter": veto, "Downloaded_state": lambda event: print(event.name)})
    mach.bind(logging)  # any module will do
    listener = mach.on("Downloaded_state", lambda event: print(event.args))
    assert_type(listener, Binding)


# -- machines ----------------------------------------------------------------------------


def construction() -> None:
    parent = Machine(File, id="parent")
    with Machine(
        File,
        id="file",
        handlers=FileHandlers("a.txt"),
        parent=parent,
        tags=("one", "two"),
        tracers=[Counter()],
        handler_timeout=1.5,
        queue_limit=10,
        log_level=LogLevel.OPS,
        log_args=("url",),
        catch_errors=False,
    ) as mach:
        assert_type(mach, Machine)
        mach.on_dispose(lambda machine: print(machine.id))
    parent.dispose(timeout=1)


def mutations(mach: Machine) -> None:
    result = mach.add(File.Downloading, "Failed", url="http://localhost", tries=3)
    assert_type(result, Result)
    if not result:
        assert_type(result.why, str)
    if result == Result.QUEUED:
        assert_type(result.wait(timeout=5), Result)
    mach.remove("Failed")
    mach.set()
    mach.toggle(File.Downloading)
    mach.add_error("it broke", "Failed", source=1)
    mach.add_error(ValueError("it broke"))
    for check in (mach.can_add, mach.can_remove, mach.can_set):
        assert_type(check("Failed"), Result)
    assert_type(mach.eval(lambda: 3), int)
    assert_type(mach.eval(mach.active_states, timeout=1), tuple[str, ...])


def reading(mach: Machine) -> None:
    assert_type(mach.is_active(File.Downloading), bool)
    assert_type(mach.is_inactive("Failed"), bool)
    assert_type(mach.any_active("Failed", ("Downloading", "Processing")), bool)
    assert_type(mach.switch("Downloading", "Downloaded"), str | None)
    assert_type(mach.active_states(), tuple[str, ...])
    assert_type(mach.states, tuple[str, ...])
    assert_type(mach.schema, Schema)
    assert_type(mach.has("Failed"), bool)
    assert_type(mach.tick("Failed"), int)
    assert_type(mach.time(), tuple[int, ...])
    assert_type(mach.time_sum("Failed"), int)
    assert_type(mach.clock(), dict[str, int])
    assert_type(mach.is_queued("add", "Failed"), bool)
    assert_type(mach.queue_length, int)
    assert_type(mach.in_transition, bool)
    assert_type(mach.transition, Transition | None)
    assert_type(mach.id, str)
    assert_type(mach.error, BaseException | None)
    assert_type(mach.is_disposed, bool)
    assert_type(mach.describe(), str)
    assert_type(mach.inspect("Failed"), str)
    mach.import_state(mach.export_state())


# -- waiting -----------------------------------------------------------------------------


def waiters(mach: Machine) -> None:
    ctx = mach.state_ctx(File.Downloading)
    assert_type(ctx, StateContext)
    assert_type(ctx.expired, bool)
    assert_type(ctx.wait(1.0), bool)
    assert_type(ctx.sleep(1), bool)
    ctx.on_expire(lambda context: print(context.expired))
    ready = mach.when(File.Downloading, "Processing", ctx=ctx)
    assert_type(ready, Waiter)
    assert_type(ready.wait(timeout=5), bool)
    assert_type(ready.is_set(), bool)
    assert_type(ready.canceled, bool)
    assert_type(ready.disposed, bool)
    ready.on_done(lambda waiter: print(waiter.is_set()))
    ready.cancel()
    with mach.when_not("Failed") as waiter:
        assert_type(waiter, Waiter)
    others: list[Waiter] = [
        mach.when_any("Failed", "Downloaded"),
        mach.when_args("Downloaded", {"url": "http://localhost"}),
        mach.when_time({"Downloaded": 3}),
        mach.when_ticks("Downloaded", 2),
        mach.when_tick("Downloaded", 3),
        mach.when_error(),
        mach.when_query(lambda clock: clock["Downloaded"] > 3),
        mach.when_queue_empty(),
        mach.when_disposed(),
    ]
    assert_type(wait_any(*others, timeout=1), Waiter | None)
    assert_type(wait_all(*others, timeout=1), bool)
    concurrent.futures.wait([as_future(ready)], timeout=1)


async def in_asyncio(mach: Machine) -> None:
    await asyncio.wrap_future(as_future(mach.when("Downloaded")))


# -- watching ----------------------------------------------------------------------------


class Counter(Tracer):
    wants_steps = True

    def __init__(self) -> None:
        self.seen: list[str] = []

    def machine_init(self, mach: Machine) -> None:
        self.seen.append(mach.id)

    def mutation_queued(self, mach: Machine, mutation: Mutation) -> None:
        self.seen.append(mutation.kind)

    def transition_end(self, tx: Transition) -> None:
        assert_type(tx.accepted, bool)
        assert_type(tx.states_before, tuple[str, ...])
        assert_type(tx.target_states, tuple[str, ...])
        assert_type(tx.duration_ns, int)
        if tx.cause is not None:
            self.seen.append(tx.cause[0])

    def handler_start(self, tx: Transition, name: str) -> None:
        self.seen.append(name)


def watching(mach: Machine) -> None:
    assert_type(mach.add_tracer(Counter()), Binding)
    mach.bind(Counter()).unbind()


# -- pipes, and code that does not care where a machine lives -----------------------------


def pipes(source: Machine, target: Machine) -> None:
    link = pipe(source, "Ready", target, "SourceReady")
    link.close()
    pipe(source, Connected.Connected, target, "Alarm", on="add", sync=False)
    pipe(source, "Connected", target, "Alarm", on="remove")
    pipe_all(source, target)
    pipe_all(source, target, "Ready", Connected.Connected)


def anywhere(mach: MachineAPI) -> bool:
    mach.add("Start")
    return mach.when("Ready").wait(timeout=1)


def local(mach: Machine) -> bool:
    return anywhere(mach)


# -- errors ------------------------------------------------------------------------------


def errors(mach: Machine, ctx: StateContext) -> None:
    try:
        mach.add("Typo")
    except UnknownStateError as error:
        print(error)
    try:
        Machine({"Foo": State(require="Typo")})
    except SchemaError as error:
        print(error)
    try:
        ctx.check()
    except ContextExpired:
        return
    except MachineError:
        raise
