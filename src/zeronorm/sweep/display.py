"""How far a sweep is: a job tells it through a small file in its output folder, a display reads
these."""

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column
from rich.text import Text


class _Terminal(Console):
    def on_broken_pipe(self) -> None:
        """Whoever read along has gone (`... | head`): the runs go on, for the store."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


console = _Terminal(highlight=False, soft_wrap=not sys.stdout.isatty())


def status_file(folder: Path) -> Path:
    """Beside a job's output folder, not in it, because the folder is logged while the job still
    runs."""
    return folder.with_name(f"{folder.name}.status.json")


def report_progress(
    folder: Path, state: str, steps: int, done: int, reason: str = "", part: str = ""
) -> None:
    """A job says how far it is.

    state: running, finite, nan, failed or killed.
    steps, done: of its training.
    reason: why it failed; of one that went to NaN, when.
    part: what a running job does where it takes no steps, e.g. "examining".
    """
    temporary = status_file(folder).with_suffix(".new")
    said = {"state": state, "steps": steps, "done": done, "reason": reason, "part": part}
    temporary.write_text(json.dumps(said))
    temporary.replace(status_file(folder))


def state_of(folder: Path) -> str:
    """How a job's status file says it is; empty where there is none."""
    return _status(folder).get("state", "")


TRACING, AFTER = 0.2, 0.15  # shares of a run before its first step and after its last
# as in the figures: what died, what lives
STYLES = {"nan": "#D55E00", "failed": "bold red", "killed": "red", "finite": "#0072B2"}
SAID = {"nan": "NaN", "finite": "finite", "failed": "FAILED", "killed": "killed"}


@dataclass(frozen=True)
class Look:
    """How far a sweep is.

    doing: in words, what is done and what is under way.
    share: of the work done.
    left: the time that is left, in words; empty while it cannot be told.
    ended: (name, state, reason) of the runs that have ended since the last look.
    """

    doing: str
    share: float
    left: str
    ended: tuple[tuple[str, str, str], ...]


class Display(threading.Thread):
    """How many runs are done, which is running, how long is left. On a terminal a bar, above it the
    runs that died or failed; elsewhere a line per run.

    alone: whether it is a run by itself, of which more is said in its own words.
    """

    def __init__(
        self,
        folders: list[Path],
        names: list[str],
        costs: list[float],
        clock: Callable[[], float] = time.monotonic,
        alone: bool = False,
    ):
        super().__init__(daemon=True)
        self.alone, self.names = alone, differing(names)
        self.folders, self.costs, self.clock = folders, costs, clock
        self.started, self.ended = clock(), threading.Event()
        self.seen: set[int] = set()

    def run(self) -> None:
        text = TextColumn(
            "{task.description}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")
        )
        time_left = TextColumn(
            "{task.fields[left]}", table_column=Column(min_width=len("1:00:00 left"), no_wrap=True)
        )
        with Progress(
            text,
            BarColumn(8),
            time_left,
            console=console,
            disable=not console.is_terminal,
            transient=True,
            expand=True,
        ) as progress:
            task = progress.add_task("starting", total=1.0, left="")
            while not self.ended.wait(0.5):
                look = self.look()
                self.say(look)
                progress.update(task, description=look.doing, completed=look.share, left=look.left)
            self.say(self.look())

    def say(self, look: Look) -> None:
        """A line for each run that has ended: on a terminal only of those that died or failed."""
        for name, state, reason in look.ended if not self.alone else ():
            if state == "finite" and console.is_terminal:
                continue
            line = Text.assemble(
                (f"{SAID[state]:6}", STYLES[state]),
                f"  {name}{reason and f'  {reason}'}",
                ("" if console.is_terminal else f"  {look.doing.split('  ')[0]}  {look.left}"),
            )
            console.print(line)

    def look(self) -> Look:
        share, running, parts, ended, done, killed = 0.0, [], [], [], 0, 0
        for number, (folder, name, cost) in enumerate(
            zip(self.folders, self.names, self.costs, strict=True)
        ):
            status = _status(folder)
            if not status:  # not started yet
                continue
            if status["state"] != "running":
                share, done = share + cost, done + 1
                killed += status["state"] == "killed"
                if number not in self.seen:
                    self.seen.add(number)
                    ended.append((name, status["state"], status.get("reason", "")))
                continue
            stepping = not status.get("part")
            own = TRACING + (1 - TRACING - AFTER) * status["done"] / max(status["steps"], 1)
            share += cost * (own if status["done"] else 0.0)
            running.append(name if stepping else f"{name} ({status['part']})")
            parts.append(stepping)
        share /= sum(self.costs) or 1
        # of runs that are past their steps, or before them, no time can be told
        last = done + len(running) == len(self.names) and not any(parts)
        # nor of a sweep that was stopped
        left = "" if last or killed else remaining(self.clock() - self.started, share)
        count = f"{done - killed}/{len(self.names)} runs"
        return Look(f"{count}  {', '.join(running)}", share, left, tuple(ended))

    def stop(self) -> None:
        self.ended.set()
        self.join()


def _status(folder: Path) -> dict:
    """What a job has said last; empty where it has not begun."""
    try:
        return json.loads(status_file(folder).read_text())
    except (OSError, ValueError):
        return {}


def differing(names: list[str]) -> list[str]:
    """The names without the words that all of them share, which say nothing here."""
    words = [name.split(" ") for name in names]
    shared = set.intersection(*map(set, words)) if len(words) > 1 else set()
    return [
        " ".join(word for word in own if word not in shared) or name
        for name, own in zip(names, words, strict=True)
    ]


def remaining(elapsed: float, share: float) -> str:
    """'3:05 left', from the seconds elapsed and the share of the work done; nothing before 1 % is
    done, nor when all is."""
    if not 0.01 <= share < 1:
        return ""
    seconds = round(elapsed * (1 - share) / share)
    return f"{seconds // 60}:{seconds % 60:02d} left" if seconds else ""
