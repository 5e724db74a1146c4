"""Writes files one after the other in a thread, so that training does not wait for the disk."""

from __future__ import annotations

from collections.abc import Callable
from queue import Queue
from threading import Thread

Task = Callable[[], None]


class OrderedWriter:
    """Does tasks in the order in which they come. After one has failed, none of the later ones is begun.

    Its thread is a daemon: a process that has to stop at once does not wait for it.
    """

    def __init__(self) -> None:
        self._tasks: Queue[Task | None] = Queue()
        self._thread: Thread | None = None
        self._error: BaseException | None = None

    def put(self, task: Task) -> None:
        """Do a task when those before it are done. Raises what one of them has raised."""
        self._raise()
        if self._thread is None:
            self._thread = Thread(target=self._work, name="checkpoints", daemon=True)
            self._thread.start()
        self._tasks.put(task)

    def wait(self) -> None:
        """Wait until all tasks are done. Raises what one of them has raised."""
        self._tasks.join()
        self._raise()

    def close(self) -> None:
        """Wait until all tasks are done, and end the thread. Raises what one of them has raised."""
        self._tasks.join()
        if self._thread is not None:
            self._tasks.put(None)
            self._thread.join()
            self._thread = None
        self._raise()

    def _raise(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _work(self) -> None:
        failed = False
        while True:
            task = self._tasks.get()
            try:
                if task is None:
                    return
                if not failed:
                    task()
            except BaseException as error:
                self._error, failed = error, True
            finally:
                self._tasks.task_done()
            del task  # it holds a copy of the state, and the next one may take long to come
