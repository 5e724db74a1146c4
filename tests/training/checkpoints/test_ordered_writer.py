"""Files are written one after the other in a thread; what goes wrong there reaches the run."""

from __future__ import annotations

import threading

import pytest

from ftexp.training.checkpoints.ordered_writer import OrderedWriter


def test_tasks_are_done_in_their_order_and_not_in_this_thread() -> None:
    writer, done, may_go_on = OrderedWriter(), list[str](), threading.Event()

    def slow() -> None:
        may_go_on.wait(10)
        done.append(threading.current_thread().name)

    writer.put(slow)
    writer.put(lambda: done.append("second"))
    assert not done  # nobody waited
    may_go_on.set()
    writer.wait()
    assert done == ["checkpoints", "second"]


@pytest.mark.parametrize("told_by", ["put", "wait", "close"])
def test_an_error_reaches_the_caller_once_and_nothing_later_is_begun(told_by: str) -> None:
    writer, done = OrderedWriter(), list[int]()
    writer.put(lambda: done.append(1))
    writer.put(lambda: done.append(1 // 0))
    writer.put(lambda: done.append(3))
    writer._tasks.join()
    with pytest.raises(ZeroDivisionError):
        writer.put(lambda: done.append(4)) if told_by == "put" else getattr(writer, told_by)()
    writer.close()
    assert done == [1]


def test_its_thread_ends_when_it_is_closed_and_holds_nobody_up_before() -> None:
    writer = OrderedWriter()
    writer.close()  # it has none yet
    writer.put(lambda: None)
    thread = writer._thread
    assert thread is not None
    assert thread.daemon
    writer.close()
    assert not thread.is_alive()
