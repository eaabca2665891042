"""How far a sweep is: a job tells it through a small file in its output folder, a display reads
these."""

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column


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


def report_progress(folder: Path, state: str, steps: int, done: int, reason: str = "") -> None:
    """A job says how far it is. state: running, finite, nan, failed, for a `reason`, or killed."""
    temporary = status_file(folder).with_suffix(".new")
    temporary.write_text(
        json.dumps({"state": state, "steps": steps, "done": done, "reason": reason})
    )
    temporary.replace(status_file(folder))


def state_of(folder: Path) -> str:
    """How a job's status file says it is; empty where there is none."""
    try:
        return json.loads(status_file(folder).read_text())["state"]
    except (OSError, ValueError, KeyError):
        return ""


class Display(threading.Thread):
    """How many runs are done, which is running, how long is left. On a terminal a bar; elsewhere a
    line per run.

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
        self.alone = alone
        self.folders, self.names, self.costs, self.clock = folders, names, costs, clock
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
            task = progress.add_task("starting", total=len(self.names), left="")
            while not self.ended.wait(0.5):
                description, share, left = self.look()
                progress.update(
                    task, description=description, completed=share * len(self.names), left=left
                )
            self.look()

    def look(self) -> tuple[str, float, str]:
        """(what to say, share of the work done, time left); off a terminal also prints a line per
        newly ended run."""
        share, running, ended = 0.0, [], []
        for number, (folder, name, cost) in enumerate(
            zip(self.folders, self.names, self.costs, strict=True)
        ):
            try:
                status = json.loads(status_file(folder).read_text())
            except FileNotFoundError:  # not started yet
                continue
            if status["state"] == "running":
                share += cost * status["done"] / max(status["steps"], 1)
                running.append(name)
            else:
                share += cost
                ended.append((number, name, status["state"], status.get("reason", "")))
        share /= sum(self.costs) or 1
        left = remaining(self.clock() - self.started, share)
        count = f"{len(ended)}/{len(self.names)} runs"
        for number, name, state, reason in ended:
            if number not in self.seen:
                self.seen.add(number)
                if not self.alone and (reason or not console.is_terminal):
                    console.print(
                        f"{count}  {name}: {state}{reason and f', {reason}'}  {left}", markup=False
                    )
        return f"{count}  {running[0] if running else ''}", share, left

    def stop(self) -> None:
        self.ended.set()
        self.join()


def remaining(elapsed: float, share: float) -> str:
    """'3:05 left', from the seconds elapsed and the share of the work done; nothing before 1 % is
    done."""
    if share < 0.01:
        return ""
    seconds = round(elapsed * (1 - share) / share)
    return f"{seconds // 60}:{seconds % 60:02d} left"
