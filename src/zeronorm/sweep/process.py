"""This process's signals and its terminal: what any process of a sweep needs, the driver's and the
workers'."""

import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from zeronorm import failure

ORDER = signal.SIGUSR1  # the driver's word to a worker to end; a SIGTERM may come from anyone
GRACE = 10.0  # seconds that a run has to end in after an interruption, before its process is killed


@contextmanager
def quiet_import() -> Iterator[None]:
    """Keeps TensorFlow's start-up lines, which it writes before its log level counts, off the
    terminal; shows them if the import fails."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as kept:
        stderr = os.dup(2)
        os.dup2(kept.fileno(), 2)
        try:
            yield
        except BaseException:
            kept.seek(0)
            os.write(stderr, kept.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)


class Interrupts:
    """SIGINT and SIGTERM, held back while TensorFlow computes: raised inside its C++ they come out
    as other errors, and the run would count as failed. `check`, called between steps, raises what
    came; a second signal raises at once, and so does the end of GRACE, for a step that never ends.

    came: the signal that came last.
    line: of the user's code, if it ran then.
    worker: whether this process is a worker, which its driver ends by ORDER;
    busy: whether it has a task.
    """

    def __init__(self):
        self.holding, self.line = False, ""
        self.pending: int | None = None
        self.came: int | None = None
        self.worker = self.busy = self.ordered = False

    def install(self) -> None:
        """In the driver."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.receive)

    def install_in_worker(self) -> None:
        """In a worker, which Ctrl-C reaches too, but which its driver ends."""
        self.worker = True
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        for number in (signal.SIGTERM, ORDER):
            signal.signal(number, self.receive)

    def receive(self, number: int, frame) -> None:
        if self.worker and not self.busy:
            # nothing to tidy up; an exception would be printed with its traceback
            os._exit(128 + number)
        # a SIGTERM of every process, and then the driver's word, are one interruption
        first = self.pending is None or (number == ORDER and not self.ordered)
        self.pending = self.came = number
        self.ordered = self.ordered or number == ORDER
        self.line = self.line or failure.line_at(frame)
        if not (self.holding and first):
            self.check()
        else:
            signal.signal(signal.SIGALRM, lambda *_: self.check())
            signal.alarm(round(GRACE))

    def check(self) -> None:
        number, self.pending = self.pending, None
        if number is not None:
            signal.alarm(0)
            raise self.exception()

    def exception(self) -> BaseException:
        """What the last signal ends the program by."""
        return (
            KeyboardInterrupt() if self.came == signal.SIGINT else SystemExit(128 + signal.SIGTERM)
        )

    def interrupted(self) -> bool:
        """Whether the program is to end. In a worker its driver decides, whose word comes at the
        same time where the signal reached every process; a SIGTERM of the worker alone ends its run
        as any other fault does."""
        if not self.worker or self.came is None:
            return self.came is not None
        deadline, self.holding = time.monotonic() + 1.0, True
        while not self.ordered and time.monotonic() < deadline:
            time.sleep(0.05)
        self.holding, self.pending = False, None
        signal.alarm(0)
        return self.ordered

    @contextmanager
    def held_until_done(self) -> Iterator[None]:
        """What is being brought to its end is: a signal that comes in the meantime has nothing left
        to end. As in `held`, it counts after all if that takes longer than GRACE."""
        self.holding = True
        try:
            yield
        finally:
            self.holding, self.pending = False, None
            signal.alarm(0)

    @contextmanager
    def held(self) -> Iterator[None]:
        self.holding = True
        try:
            yield
        finally:
            self.holding = False
        self.check()


def interrupts() -> Interrupts:
    """What handles this process's signals; where nothing of ours does, one to which none has
    come."""
    handlers = (signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT))
    owners = (getattr(handler, "__self__", None) for handler in handlers)
    return next((owner for owner in owners if isinstance(owner, Interrupts)), Interrupts())


def adopt() -> None:
    """In a process that another launcher has started: handles the signals that nobody else does."""
    handled = interrupts()
    if threading.current_thread() is threading.main_thread():
        for number, default in (
            (signal.SIGINT, signal.default_int_handler),
            (signal.SIGTERM, signal.SIG_DFL),
        ):
            handler = signal.getsignal(number)
            if handler == default or _only_logs(handler):
                signal.signal(number, handled.receive)


def _only_logs(handler: Any) -> bool:
    """Whether it is the one by which submitit writes a SIGTERM down and goes on: Slurm's `scancel`
    would end the run by a SIGKILL, half a minute later."""
    module = getattr(getattr(handler, "__func__", None), "__module__", "")
    return module == "submitit.core.job_environment" and handler.__name__ == "bypass"
