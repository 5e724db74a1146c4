"""Faster imports and faster exits of the interpreter."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator

import pytest

from ftexp.machine.interpreter import garbage_left_alone


@pytest.fixture(autouse=True)
def nothing_frozen() -> Iterator[None]:
    gc.unfreeze()
    yield
    gc.unfreeze()


@pytest.fixture
def module_not_imported_yet(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.delitem(sys.modules, "this", raising=False)
    return "this"


def test_nothing_is_collected_during_an_import_and_what_was_imported_is_passed_by(module_not_imported_yet: str) -> None:
    with garbage_left_alone():
        assert not gc.isenabled()
        __import__(module_not_imported_yet)
    assert gc.isenabled()
    assert gc.get_freeze_count() > 0


def test_where_nothing_new_is_imported_all_garbage_is_still_collected() -> None:
    with garbage_left_alone():
        import sys as known  # noqa: F401
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


def test_collections_go_on_after_an_import_that_fails() -> None:
    with pytest.raises(ModuleNotFoundError), garbage_left_alone():
        __import__("there_is_no_such_module")
    assert gc.isenabled()


def test_garbage_collection_that_was_off_stays_off(module_not_imported_yet: str) -> None:
    gc.disable()
    try:
        with garbage_left_alone():
            __import__(module_not_imported_yet)
        assert not gc.isenabled()
        assert gc.get_freeze_count() == 0
    finally:
        gc.enable()


def test_all_is_given_back_when_the_process_ends() -> None:
    ended = run_program("""
        import atexit, gc
        from ftexp.machine.interpreter import garbage_left_alone

        atexit.register(lambda: print(gc.get_freeze_count()))  # the first to be registered is the last to run
        with garbage_left_alone():
            import decimal
        print(gc.get_freeze_count() > 0)
    """)
    assert ended.stdout.split() == ["True", "0"]


ENDING = """
    import atexit, sys, threading, time
    from ftexp.machine.interpreter import end_process, run_program

    class Told:
        def __del__(self):
            print("taken apart")

    told = Told()
    atexit.register(print, "exit handlers run")
    print("no line end", end=" ")
"""


def test_a_process_ends_with_its_exit_handlers_and_output_but_is_not_taken_apart() -> None:
    ended = run_program(ENDING, "end_process()", "print('never reached')")
    assert ended.stdout == "no line end exit handlers run\n"


@pytest.mark.parametrize(("ends", "code"), [("return 3", 3), ("sys.exit(3)", 3), ("sys.exit()", 0), ("pass", 0)])
def test_a_program_that_fails_is_not_taken_apart_either(ends: str, code: int) -> None:
    ended = run_program(ENDING, f"def main(): {ends}", "run_program(main)", "print('never reached')", code=code)
    assert ended.stdout == "no line end exit handlers run\n"


def test_a_program_that_exits_with_a_message_prints_it() -> None:
    ended = run_program(ENDING, "run_program(lambda: sys.exit('no such thing'))", code=1)
    assert ended.stderr == "no such thing\n"


def test_a_running_thread_finishes_before_the_process_ends() -> None:
    slow = "threading.Thread(target=lambda: time.sleep(0.2) or print('done')).start()"
    ended = run_program(ENDING, slow, "end_process()", "print('reached')")
    assert [line.split()[-1] for line in ended.stdout.splitlines()] == ["reached", "done", "run", "apart"]


def test_a_debugger_sees_the_end() -> None:
    ended = run_program(ENDING, "sys.settrace(lambda *_: None)", "end_process()", "print('reached')")
    assert "reached" in ended.stdout


def test_a_reader_that_closes_the_pipe_is_not_an_error() -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-c", program(ENDING, "end_process()")]
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    ended = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, env=buffered)
    os.close(write)
    assert (ended.returncode, ended.stderr) == (0, b"")


def program(*parts: str) -> str:
    return "\n".join(textwrap.dedent(part) for part in parts)


def run_program(*parts: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    ended = subprocess.run([sys.executable, "-c", program(*parts)], capture_output=True, text=True)
    assert ended.returncode == code, ended.stderr
    return ended
