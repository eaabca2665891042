"""Why a run did not finish: the reason in one line, and the line of the user's own code that it
comes from."""

import os
import re
import signal
import sysconfig
import traceback
from pathlib import Path
from types import FrameType

from hydra.errors import CompactHydraException

LONGEST = 300  # characters of a reason
TIMED_OUT = "Slurm's time limit: give each run more minutes by hydra.launcher.timeout_min"


class RunFailed(CompactHydraException):
    """A run that has failed, and why. Hydra prints its sentence and no traceback.

    reason: one line. line: `mine.py:12`, of the user's code; empty where none of it was under way.
    """

    def __init__(self, reason: str, line: str = ""):
        super().__init__(reason, line)  # both, so that it can be pickled
        self.reason, self.line = reason, line

    def __str__(self) -> str:
        return f"{self.reason} ({self.line})" if self.line else self.reason


def of(error: BaseException) -> RunFailed:
    """The failure that `error` makes of a run: any exception, SystemExit and KeyboardInterrupt
    included."""
    return error if isinstance(error, RunFailed) else RunFailed(reason(error), line(error))


def reason(error: BaseException) -> str:
    """`ValueError: what it says`; of this project's own exceptions, which are sentences, these
    alone; of TensorFlow's the sentence that says why; of a run that a cluster has told of its time
    limit, what to do."""
    said = next((text.strip() for text in str(error).splitlines() if text.strip()), "")[:LONGEST]
    name = type(error).__name__
    if type(error).__module__.startswith("tensorflow."):
        from zeronorm.autopsy import refusal  # TensorFlow, which it imports, is there

        return f"{name}: {refusal.sentence(str(error))}"
    if name == "UncompletedJobError" and "timed-out" in said:  # submitit's
        return TIMED_OUT
    if type(error).__module__.split(".")[0] == __package__ and said:
        return said
    return f"{name}: {said}" if said else name


def line(error: BaseException) -> str:
    """`mine.py:12`, the innermost line of the user's code in the traceback of `error` or of what it
    came from; the one that its message quotes, where it is TensorFlow's account of a Python
    function; else empty."""
    seen: list[BaseException] = []
    came: BaseException | None = error
    while came is not None and came not in seen:
        seen.append(came)
        frames = traceback.extract_tb(came.__traceback__)
        quoted = re.findall(r'File "([^"]+)", line (\d+)', str(came))
        places = [(frame.filename, frame.lineno) for frame in frames] + quoted
        for file, number in reversed(places):
            if _is_users(file):
                return _shown(file, number)
        came = came.__cause__ or came.__context__
    return ""


def line_at(frame: FrameType | None) -> str:
    """The same of a frame, for a signal that interrupted it."""
    while frame is not None:
        if _is_users(frame.f_code.co_filename):
            return _shown(frame.f_code.co_filename, frame.f_lineno)
        frame = frame.f_back
    return ""


def how_it_ended(exit_code: int | None) -> str:
    """What ended a process: `SIGKILL`, or `exit status 3`. exit_code: as multiprocessing gives it,
    -9 for SIGKILL."""
    if exit_code is None:
        return "it does not answer"
    if exit_code >= 0:
        return f"exit status {exit_code}"
    try:
        return signal.Signals(-exit_code).name
    except ValueError:
        return f"signal {-exit_code}"


def _is_users(file: str) -> bool:
    """Whether a file is neither Python's nor an installed package's nor this project's. One that
    was not read from disk, as `<string>`, is none."""
    others = [
        sysconfig.get_path(name)
        for name in ("stdlib", "platstdlib", "purelib", "platlib", "scripts")
    ]
    source = Path(__file__).resolve().parent
    others += [str(source), str(source.parent / "hydra_plugins")]
    path = os.path.realpath(file)
    return os.path.isfile(path) and not any(
        path.startswith(os.path.realpath(other) + os.sep) for other in others
    )


def _shown(file: str, number: int | str) -> str:
    return f"{min(file, os.path.relpath(file), key=len)}:{number}"
