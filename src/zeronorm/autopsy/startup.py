"""Imports TensorFlow without the lines that it writes to the terminal on its way up.

They are written to the file descriptor of stderr before any level of its log counts. Meanwhile that
descriptor leads to a process of its own, this file as a program, which passes on every other line:
what another thread says, a failing import, and the last words of a process that is aborted in it.
"""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

LEVEL = "TF_CPP_MIN_LOG_LEVEL"
# of a GPU's driver: without one TensorFlow's errors are of its absence
DRIVERS = ("/proc/driver/nvidia", "/dev/kfd", "/dev/dxg")
STARTING = re.compile(
    rb"WARNING: All log messages before absl::InitializeLog\(\) is called are written to STDERR"
    rb"|I0000 00:00:\d+\.\d+ +\d+ (port|cudart_stub|cpu_feature_guard)\.cc:\d+\] "
    rb"|To enable the following instructions: .*rebuild TensorFlow"
)
PATIENCE = 2.0  # seconds for the last lines; a process begun meanwhile may hold on to them


@contextmanager
def hushed() -> Iterator[None]:
    """Sets the level of TensorFlow's log, where the user has not, and keeps its first lines off the
    terminal. Does nothing where TensorFlow is imported already, or the level is set to 0."""
    if "tensorflow" in sys.modules or os.environ.get(LEVEL) == "0":
        yield
        return
    os.environ.setdefault(LEVEL, "1" if any(map(os.path.exists, DRIVERS)) else "3")
    own, through = _filter()
    if through is None:
        yield
        return
    assert through.stdin is not None
    _redirect(through.stdin.fileno())
    through.stdin.close()
    try:
        yield
    finally:
        _redirect(own)
        os.close(own)
        waiting = threading.Thread(target=through.wait, daemon=True)  # leaves no dead process
        waiting.start()
        waiting.join(PATIENCE)


def _filter() -> tuple[int, subprocess.Popen | None]:
    """(where stderr leads now, a process that writes there what it reads). No process without a
    stderr, or where none can be started."""
    try:
        own = os.dup(2)
    except OSError:
        return -1, None
    try:
        command = [sys.executable, "-I", "-S", __file__]
        # the terminal's Ctrl-C is for this process alone
        return own, subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=own, start_new_session=True
        )
    except OSError:
        os.close(own)
        return -1, None


def _redirect(descriptor: int) -> None:
    """Lets stderr lead to where a descriptor does."""
    if sys.stderr is not None:
        sys.stderr.flush()
    os.dup2(descriptor, 2)


def main() -> None:
    for line in sys.stdin.buffer:
        if not STARTING.match(line):
            sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
