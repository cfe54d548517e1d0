"""Relational state machines for plain threaded Python: see the README and docs/manual.md."""

from asyncmachine.api import MachineAPI
from asyncmachine.errors import (
    ContextExpired,
    HandlerError,
    HandlerTimeoutError,
    InternalError,
    MachineError,
    PipeOverflowError,
    SchemaError,
    UnknownStateError,
)
from asyncmachine.forks import Fork
from asyncmachine.handlers import Binding
from asyncmachine.logs import LogLevel
from asyncmachine.machine import Machine
from asyncmachine.pipes import Pipe, pipe, pipe_all
from asyncmachine.results import Result
from asyncmachine.schema import Schema, State, States, group
from asyncmachine.states import Basic, Connected, Disposed, Pool
from asyncmachine.tracing import Tracer
from asyncmachine.transition import Cause, ErrorSource, Event, Mutation, Step, Transition
from asyncmachine.waiting import StateContext, Waiter, as_future, wait_all, wait_any

__version__ = "0.1.0"

__all__ = [
    "Basic",
    "Binding",
    "Cause",
    "Connected",
    "ContextExpired",
    "Disposed",
    "ErrorSource",
    "Event",
    "Fork",
    "HandlerError",
    "HandlerTimeoutError",
    "InternalError",
    "LogLevel",
    "Machine",
    "MachineAPI",
    "MachineError",
    "Mutation",
    "Pipe",
    "PipeOverflowError",
    "Pool",
    "Result",
    "Schema",
    "SchemaError",
    "State",
    "StateContext",
    "States",
    "Step",
    "Tracer",
    "Transition",
    "UnknownStateError",
    "Waiter",
    "as_future",
    "group",
    "pipe",
    "pipe_all",
    "wait_all",
    "wait_any",
]
