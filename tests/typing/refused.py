"""Mistakes that mypy and pyright must find: one on each line marked so, and no others."""

from __future__ import annotations

from asyncmachine import (
    Event,
    LogLevel,
    Machine,
    Result,
    Schema,
    State,
    StateContext,
    States,
    Tracer,
    Waiter,
    as_future,
    pipe,
    wait_all,
    wait_any,
)


class File(States):
    Downloading = State()
    Misspelt = State(requires="Downloading")  # refused
    Flagged = State(auto="yes")  # refused
    Positional = State("Downloading")  # refused
    Numbered = State(add=3)  # refused


def declarations() -> None:
    Machine(3)  # refused
    Machine("File")  # refused
    Machine({"Foo": "Bar"})  # refused
    Machine(File, "an id")  # refused
    Machine(File, log_level="all")  # refused
    Machine(File, handler_timeout="1s")  # refused
    Machine(File, tracers=[print])  # refused
    Machine(File, no_such_option=True)  # refused
    Schema(["Foo"])  # refused
    print(File.Unknown)  # refused


def mutations(mach: Machine) -> None:
    mach.add(1)  # refused
    mach.add(["Foo", "Bar"])  # refused
    mach.remove(State())  # refused
    mach.set(None)  # refused
    mach.add_error(3)  # refused
    mach.can_add(b"Foo")  # refused
    mach.eval("Foo")  # refused
    mach.eval(lambda event: event)  # refused
    number: int = mach.add("Foo")  # refused
    mach.add("Foo").wait("soon")  # refused
    mach.add("Foo").state  # refused
    Result.DONE  # refused
    text: str = mach.eval(lambda: 3)  # refused
    print(number, text)


def reading(mach: Machine) -> None:
    mach.is_active(3)  # refused
    mach.tick()  # refused
    mach.tick("Foo", "Bar")  # refused
    mach.queue_length()  # refused
    mach.in_transition = True  # refused
    mach.id = 3  # refused
    mach.is_queued("toggle", "Foo")  # refused
    mach.active_states().append("Foo")  # refused
    mach.is_activ("Foo")  # refused


def handlers(mach: Machine, event: Event) -> None:
    mach.on("Foo_state", lambda: None)  # refused
    mach.on("Foo_state", 3)  # refused
    mach.bind()  # refused
    event.args["url"] = 3  # refused
    event.expired()  # refused
    event.fork(3)  # refused


def waiting(mach: Machine, ctx: StateContext, waiter: Waiter) -> None:
    waiter.clear()  # refused
    waiter.set()  # refused
    waiter.wait("soon")  # refused
    mach.when("Foo", ctx=3)  # refused
    mach.when_args("Foo", "url")  # refused
    mach.when_time("Foo")  # refused
    mach.when_ticks("Foo", "2")  # refused
    mach.when_query("Foo > 3")  # refused
    wait_any(mach)  # refused
    wait_all("Foo")  # refused
    wait_all(waiter, 5)  # refused
    as_future(mach)  # refused
    ctx.sleep("1s")  # refused
    ctx.expired()  # refused


def pipes(source: Machine, target: Machine) -> None:
    pipe(source, "Foo", "target", "Foo")  # refused
    pipe(source, "Foo", target, "Foo", on="toggle")  # refused
    pipe(source, target)  # refused


class Wrong(Tracer):
    def handler_start(self, name: str) -> None:  # refused
        print(name)


def watching(mach: Machine) -> None:
    mach.add_tracer(print)  # refused
    LogLevel.ALL  # refused
