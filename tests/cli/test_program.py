"""Commands with ordinary flags end in one message and an exit code, and are reached from ``ftexp`` by their names."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
from conftest import CommandLine

from ftexp.__main__ import COMMANDS
from ftexp.cli.program import end_program, make_parser
from ftexp.errors import ConfigError, InterruptedRunError


def raising(error: BaseException) -> Callable[[], int]:
    def task() -> int:
        raise error

    return task


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (
            ConfigError("uri=sqlite://me:secret@h."),
            1,
            "ftexp: uri=sqlite://***@h.\n",
        ),
        (
            RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has\nmore"),
            1,
            "ftexp: Out of memory (CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has). Use smaller batches "
            "(train.batch_size; --batch-size of predict and evaluate), smaller images (data.image_size) or a smaller "
            "model, or end other programs on the device.\n",
        ),
        (KeyboardInterrupt(), 130, "ftexp: interrupted.\n"),
        (InterruptedRunError(15), 143, "ftexp: interrupted.\n"),
    ],
)
def test_a_mistake_is_one_message(
    error: BaseException, code: int, message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    assert end_program(raising(error)) == code
    assert capsys.readouterr().err == message


def test_a_traceback_is_shown_where_it_is_asked_for_and_for_our_own_mistakes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    assert end_program(raising(ConfigError("wrong"))) == 1
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    assert end_program(raising(ZeroDivisionError("ours"))) == 1
    said = capsys.readouterr().err
    assert said.count("Traceback") == 2
    assert said.rstrip().endswith("ZeroDivisionError: ours")


def test_the_exit_code_is_that_of_the_task() -> None:
    assert [end_program(lambda code=code: code) for code in (0, 3)] == [0, 3]


def test_warnings_are_shown_once(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    handlers, root.handlers[:] = list(root.handlers), []
    try:
        for _ in range(2):
            end_program(lambda: logging.getLogger("ftexp.somewhere").warning("careful") or 0)
    finally:
        root.handlers[:] = handlers
    assert capsys.readouterr().err == "ftexp: careful\n" * 2


def test_help_has_the_name_and_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        make_parser("predict", "Classify images.", "latest photos").parse_args(["--help"])
    shown = capsys.readouterr().out
    assert shown.startswith("usage: python -m ftexp.predict")
    assert "Example: python -m ftexp.predict latest photos" in shown


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_reached_from_ftexp(command_line: CommandLine, name: str) -> None:
    ended = command_line(name, "--help")
    assert ended.returncode == 0
    assert f"ftexp.{name}" in ended.stdout
