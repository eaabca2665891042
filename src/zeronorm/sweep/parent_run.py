"""A sweep in the store: its parent run, which of its runs failed and why, its table."""

import os
import shutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from hydra.core.utils import JobReturn, JobStatus

from zeronorm import failure
from zeronorm.failure import RunFailed
from zeronorm.sweep import slurm
from zeronorm.sweep.display import console, state_of
from zeronorm.sweep.job import PARENT_FILE, PARENT_RUN, browse_hint
from zeronorm.sweep.plan import Plan

SHOWN = 20  # failed runs that the closing lines name


class ParentRun:
    """The run of the sweep under way to which those of its jobs belong, from construction to
    `close`."""

    def __init__(self, plan: Plan, folder: Path, command: Sequence[str], counted: bool):
        """folder: the sweep's own.
        command: what was typed after `zeronorm`.
        counted: whether the launcher counts the jobs it is given, as Hydra's own do; ours gives
            each its place in the sweep."""
        from zeronorm import tracking

        self.config, self.folder, self.plan = plan.config, folder, plan
        self.jobs, self.overrides = len(plan.jobs) + len(plan.finished), plan.overrides
        self.numbers = list(range(len(plan.jobs))) if counted else plan.numbers
        self.folders = [folder / str(number) for number in self.numbers]
        self.labels = plan.labels()
        first = plan.configs[:1]
        self.on_slurm = any("hydra" in one and slurm.is_slurm(one.hydra.launcher) for one in first)
        self.failed: dict[int, RunFailed] = {}  # by the job's place in `plan.jobs`
        self.dead: list[str] = []  # run ids of those that went to NaN, once it is closed
        self.trouble = ""  # what kept the launcher from its jobs
        self.client = tracking.connect(self.config)
        self.run = tracking.open_sweep(
            self.client,
            self.config,
            self.jobs,
            " ".join(["zeronorm", *command]),
            plan.shared,
        )
        tracking.adopt(self.client, self.run, plan.finished)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / PARENT_FILE).write_text(self.run.info.run_id)
        os.environ[PARENT_RUN] = self.run.info.run_id

    def note(self, returns: Sequence[JobReturn]) -> None:
        """Keeps why jobs failed. returns: of every job, in the order of `plan.jobs`."""
        for job, found in enumerate(returns):
            if found.status == JobStatus.FAILED:
                self.failed[job] = failure.of(found._return_value)

    def close(self, status: str) -> str:
        """Ends the parent run and prints the table of what has finished, how many have, and which
        failed.

        status: FINISHED, FAILED or KILLED. Returns what it comes to: FINISHED only if every run
        has. None of it needs the store, which may be what failed.
        """
        from zeronorm import tracking

        try:
            done = self._recorded(status)
        except Exception as error:  # the store's, or the disk's
            done = len(self.plan.finished) + sum(
                state_of(folder) in ("finite", "nan") for folder in self.folders
            )
            why = failure.reason(error)
            console.print(
                f"The sweep could not be closed in the store {tracking.store_uri(self.config)}"
                f" ({why}): when it is back, `zeronorm reap` ends what counts as running there, and"
                " --only-missing makes the runs it lacks.",
                markup=False,
            )
        if status == "KILLED":
            console.print(
                "Interrupted. What is finished is kept; with --only-missing the same command"
                " goes on."
            )
            if self.on_slurm:
                console.print(slurm.cancel_hint(self.folder))
        elif done < self.jobs:
            status = "FAILED"
            self._say_failed()
        console.print(
            f"{done} of {self.jobs} runs finished; tables: {self.folder}/table.md, table.csv,"
            " runs.csv"
        )
        if status == "FAILED":
            console.print(
                "What is finished is kept; with --only-missing the same command makes the others."
            )
        if self.dead:
            console.print(f"What killed the first of them: zeronorm autopsy {self.dead[0]}")
        # a link that is wrapped by hand cannot be clicked
        hint = browse_hint(self.config, self.run.info.experiment_id)
        console.print(hint, soft_wrap=True)
        return status

    def _recorded(self, status: str) -> int:
        """Ends every run of the sweep in the store, and prints and adds its table. Returns how many
        finished."""
        from zeronorm import tracking

        parent = self.run.info.run_id
        runs = tracking.children(self.client, self.run)
        done = int((runs["status"] == "FINISHED").sum()) if len(runs) else 0
        own = [
            run for run in runs.to_dict("records") if run.get("tags.mlflow.parentRunId") == parent
        ]
        states = {run["tags.job"]: run["status"] for run in own}
        lost: dict[str, RunFailed] = {}
        for job, failed in list(self.failed.items()):
            number = self.numbers[job]
            if states.get(str(number)) == "FINISHED":  # its process died after its end
                del self.failed[job]
            elif str(number) in states:
                lost[str(number)] = failed
            else:  # it left no trace: its record says why
                node, overrides = self.plan.jobs[job], self.overrides[job]
                with (
                    suppress(RunFailed),
                    tracking.tracked(self.client, node, overrides, parent, number),
                ):
                    raise failed
        for run in own:  # what the launcher has not told
            number = int(run["tags.job"])
            if run["status"] == "FAILED" and number in self.numbers:
                why = RunFailed(str(run.get("tags.error", "no reason is known")))
                self.failed.setdefault(self.numbers.index(number), why)
        if "tags.outcome" in runs:
            self.dead = list(runs.loc[runs["tags.outcome"] == "nan", "run_id"])
        files = self._tables(runs) if done else []
        ended = "FAILED" if status == "FINISHED" and done < self.jobs else status
        tracking.close_sweep(self.client, self.run, ended, files, lost)
        return done

    def _tables(self, runs) -> list[Path]:
        """Prints the sweep's table and writes it into its folder."""
        from zeronorm.report import present, tables

        files = [self.folder / name for name in ("table.md", "table.csv", "runs.csv")]
        try:
            table = tables.runs_table(self.config.study or "sweep", runs)
            conditions = tables.conditions_table(table)
            present.print_table(conditions, console)
            files[0].write_text(present.markdown(conditions) + "\n")
            conditions.to_csv(files[1], index=False)
            table.to_csv(files[2], index=False)
            self._describe(runs, conditions)
            return files + (self._figures(table) if self.config.study else [])
        except Exception as error:  # the runs' states are still to be told
            console.print(f"The table cannot be made: {failure.reason(error)}", markup=False)
            return [file for file in files if file.exists()]

    def _describe(self, runs, conditions) -> None:
        """What who browses meets first: the sweep's description and numbers."""
        from zeronorm import tracking, views
        from zeronorm.report import description

        experiment = self.run.info.experiment_id
        pages = {name: views.page("", experiment, view) for view, name in views.NAMES.items()}
        text = description.markdown(
            runs,
            conditions,
            self.run.data.tags["command"],
            pages,
            lambda run: views.artifact("", experiment, run, "autopsy.md"),
        )
        numbers = description.numbers(conditions)
        tracking.describe_sweep(self.client, self.run, text, numbers)

    def _figures(self, table) -> list[Path]:
        """The study's figures, of this sweep's runs."""
        from zeronorm import tracking
        from zeronorm.report import write

        with TemporaryDirectory() as beside:
            write.save_tables(table, Path(beside), lambda run: tracking.curves(self.client, run))
            drawn = write.draw(Path(beside))
            return [Path(shutil.copy(Path(beside, name), self.folder)) for name in drawn]

    def _say_failed(self) -> None:
        """One line a run, on stderr: which, why, and where in the user's code."""
        lines = [
            f"FAILED {self.labels[job]}: {failed}" for job, failed in sorted(self.failed.items())
        ]
        if len(lines) > SHOWN:
            lines[SHOWN:] = [
                f"And {len(lines) - SHOWN} more: the tag `error` of each run says why."
            ]
        if self.trouble:
            lines.append(f"zeronorm: {self.trouble}")
        sys.stdout.flush()
        print("\n".join(lines), file=sys.stderr, flush=True)
