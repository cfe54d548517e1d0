"""Things are done one after the other, whoever brings them."""

from __future__ import annotations

from functools import partial

import pytest

from asyncmachine.net.gate import Gate
from asyncmachine.net.serial import Serial
from tests.races import PATIENCE, outcome, start, switching_often, together


def test_things_are_done_in_order_and_none_is_left_behind() -> None:
    with switching_often():
        for _ in range(50):
            serial = Serial()
            done: list[tuple[int, int]] = []
            busy: list[None] = []

            def work(who: int, serial: Serial = serial, done: list[tuple[int, int]] = done,
                     busy: list[None] = busy) -> None:  # fmt: skip
                def note(n: int) -> None:
                    assert not busy
                    busy.append(None)
                    done.append((who, n))
                    busy.pop()

                for n in range(50):
                    serial.do(partial(note, n))

            together(*[lambda who=who: work(who) for who in range(4)])
            assert len(serial) == 0
            assert len(done) == 200
            for who in range(4):
                assert [n for each, n in done if each == who] == list(range(50))


def test_what_is_given_meanwhile_is_done_afterwards() -> None:
    serial = Serial()
    done: list[int] = []

    def first() -> None:
        serial.do(lambda: done.append(2))
        done.append(1)

    serial.do(first)
    assert done == [1, 2]


def test_an_error_leaves_the_line_open() -> None:
    serial = Serial()
    with pytest.raises(ZeroDivisionError):
        serial.do(lambda: 1 / 0)
    done: list[int] = []
    serial.do(lambda: done.append(1))
    assert done == [1]


def test_a_gate_lets_go_on_whoever_waited_when_it_was_opened() -> None:
    with switching_often():
        for _ in range(50):
            gate = Gate()
            waiting = [start(partial(gate.wait, PATIENCE)) for _ in range(3)]
            gate.open()
            gate.open()
            assert all(outcome(each) for each in waiting)
            gate.shut()
            assert not gate.is_open
            assert not gate.wait(0)
            assert not gate.wait(0.001)
