"""A call of `zeronorm train` or `reproduce`, around Hydra's jobs: check every job first, hold the
parent run, show how far it is.

Jobs may run in this process or, with another launcher, elsewhere. So a job tells how far it is
through a small file in its output folder, and learns its parent run through the environment or,
where that does not reach it, through a file in the sweep's folder.
"""

import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from contextvars import ContextVar
from pathlib import Path
from types import MappingProxyType
from typing import Any

import cloudpickle
import hydra
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict
from omegaconf.errors import OmegaConfBaseException

from zeronorm import checkout, contents, failure, mistakes
from zeronorm import config as schema
from zeronorm.failure import RunFailed
from zeronorm.sweep import check, slurm, workers
from zeronorm.sweep.composer import without_hydra
from zeronorm.sweep.display import Display, console, report_progress
from zeronorm.sweep.job import job
from zeronorm.sweep.parent_run import ParentRun
from zeronorm.sweep.plan import Plan, costs, expand, planned
from zeronorm.sweep.process import GRACE, Interrupts

NO_FLAGS: Mapping[str, Any] = MappingProxyType({})
UNDER_WAY: ContextVar["Session"] = ContextVar(
    "the session to which Hydra's callback and plugins belong"
)


class Session:
    """What one command is about, from its words to its exit status.

    command: what was typed after `zeronorm`.
    only_missing: whether a finished run of the same config, in any earlier sweep of the study, is
        taken over.
    only_planned: whether to say what a sweep would do, and stop.
    reported: the config_sha of the runs of a report to which the sweep is confined; empty: it is
        not.
    closed: the sweep's parent run, once it has ended; None before, and of a run by itself.
    """

    def __init__(
        self,
        command: Sequence[str],
        only_missing: bool = False,
        only_planned: bool = False,
        reported: frozenset[str] = frozenset(),
    ):
        self.command, self.only_missing, self.only_planned = (
            list(command),
            only_missing,
            only_planned,
        )
        self.reported, self.interrupts = reported, Interrupts()
        self.pool: workers.Workers | None = None
        self.display: Display | None = None
        self.parent: ParentRun | None = None
        self.closed: ParentRun | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Nothing, for a job elsewhere: a launcher that is pickled for it takes along what
        `quietly` made of its `launch`, and with that the session."""
        return {}

    def run(self, overrides: Sequence[str], flags: Mapping[str, Any] = NO_FLAGS) -> None:
        """Hydra's application on the overrides. flags: Hydra's own, {name: value}. Raises
        SystemExit, with the exit status that follows from the runs, unless all have finished."""
        UNDER_WAY.set(self)
        self.interrupts.install()
        schema.register()
        sys.argv = ["zeronorm train", *_words(flags), *overrides]
        entry = hydra.main(
            version_base="1.3", config_path=str(checkout.conf_dir()), config_name="config"
        )(job)
        status = "FAILED"
        try:
            _require_composable(overrides, flags)
            entry()
            status = "FINISHED"
        except RunFailed as failed:  # one job of a sweep, made again by --experimental-rerun
            raise SystemExit(f"zeronorm: {failed}") from None
        except BaseException:
            if self.interrupts.came is None:
                raise
            status = "KILLED"
            raise SystemExit(128 + self.interrupts.came) from None
        finally:
            with self.interrupts.held_until_done():
                ended = self._close(status)
        if ended != "FINISHED":
            raise SystemExit(1)

    def begin_run(self, config: DictConfig) -> None:
        """Before a run by itself. config: with Hydra's own node."""
        one, launcher = without_hydra(config), config.hydra.launcher
        schema.validate(one)
        if _is_ours(launcher):
            workers.plan(1, launcher.workers, launcher.threads)
        if slurm.is_slurm(launcher):
            console.print("A launcher is for sweeps: this single run is made here; -m submits it.")
        if self.only_missing:
            console.print("--only-missing belongs to a sweep: this single run is made in any case.")
        if _calls_own_code(one):  # which may end the process that tries it
            self.pool = workers.Workers(*workers.plan(1, 1, None))
        check.check([one], self.pool)
        self._dismiss()  # the run itself is made in this process
        folder, name = Path(config.hydra.run.dir), schema.condition(one)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise schema.ConfigError(
                f"hydra.run.dir={folder} cannot be made ({error.strerror}): name another folder."
            ) from error
        self._show(Display([folder], [name], [1.0], alone=True))

    def begin_sweep(self, config: DictConfig) -> None:
        """Before the jobs of a sweep. config: with Hydra's own node."""
        folder = Path(config.hydra.sweep.dir)  # its date is settled here, for every job
        overrides, launcher = expand(config), config.hydra.launcher
        if _is_ours(launcher) and not self.only_planned:
            self._hire(len(overrides), launcher)
        plan = planned(config, overrides, self.command, self.only_missing, self.reported)
        if self.only_planned:
            more = (
                "" if self.only_missing else " With --only-missing, less those that are finished."
            )
            console.print(f"{plan.config.study}: {plan}{more}")
            raise SystemExit(0)
        if plan.jobs and slurm.is_slurm(launcher):
            slurm.require_commands()
        if self.pool is not None and len(plan.jobs) < self.pool.count:
            self._dismiss()
            if plan.jobs:
                self._hire(len(plan.jobs), launcher)
        if plan.jobs:
            check.check(plan.jobs, self.pool)
        self.parent = ParentRun(plan, folder, self.command, counted=self.pool is None)
        self._show(Display(self.parent.folders, self.parent.labels, costs(plan)))

    def _hire(self, jobs: int, launcher: DictConfig) -> None:
        """Starts the workers of so many jobs. They import TensorFlow while this process goes on."""
        self.pool = workers.Workers(*workers.plan(jobs, launcher.workers, launcher.threads))

    def _dismiss(self) -> None:
        pool, self.pool = self.pool, None
        if pool is not None:
            pool.close(at_once=True)

    def launch(
        self, context: HydraContext, task: TaskFunction, overrides: list[list[str]]
    ) -> list[JobReturn]:
        """Runs the sweep's jobs in the pool, for hydra/launcher=workers; a JobReturn for each, in
        order."""
        parent, pool = self.parent, self.pool
        assert parent is not None and pool is not None  # `begin_sweep` has made them
        shared = cloudpickle.dumps((context, task, Singleton.get_state()))
        configs = _numbered(parent.plan)
        arguments = [(shared, dict(os.environ), cloudpickle.dumps(config)) for config in configs]

        def lost(number: int, died: workers.WorkerDied) -> bytes:
            failed = RunFailed(f"A worker process died in this run ({died}){_perhaps(str(died))}")
            with suppress(OSError):  # the disk may be what is full
                report_progress(parent.folders[number], "failed", 1, 1, str(failed))
            return cloudpickle.dumps(_failed(failed, overrides[number]))

        def waiting(jobs: list[int], killed: bool) -> None:
            names = "; ".join(parent.labels[number] for number in jobs)
            how = (
                "Killed, because it did not end"
                if killed
                else f"Stopping these runs, in {GRACE:.0f} s at most"
            )
            console.print(f"{how}: {names}", markup=False)
            for number in jobs if killed else ():
                with suppress(OSError):
                    report_progress(parent.folders[number], "killed", 1, 1)

        found = pool.map(_run_job, arguments, parent.plan.graphs, lost, waiting)
        return [cloudpickle.loads(one) for one in found]

    def quietly(self, launch: Callable[..., Sequence[JobReturn]]) -> Callable[..., list[JobReturn]]:
        """A launcher's `launch` that keeps what failed for the closing lines: Hydra's sweeper would
        raise the first of it, with a traceback."""

        def launched(*arguments, **options) -> list[JobReturn]:
            parent = self.parent
            assert parent is not None  # `begin_sweep` has made it
            try:
                with slurm.settled() if parent.on_slurm else nullcontext():
                    returns = launch(*arguments, **options)
            except workers.WorkersFailed as error:
                returns, parent.trouble = [], str(error)
            except Exception as error:
                failed = failure.of(error)
                returns, parent.trouble = [], f"The launcher failed: {failed}"
            parent.note(returns)
            return [found for found in returns if found.status == JobStatus.COMPLETED]

        return launched

    def _show(self, display: Display) -> None:
        self.display = display
        display.start()

    def _close(self, status: str) -> str:
        """Ends the workers and the progress display, and closes the sweep under way, if there is
        one. Returns the status that it came to."""
        pool, self.pool = self.pool, None
        try:
            if pool is not None:
                pool.close(at_once=status != "FINISHED")
        finally:
            if self.display is not None:
                self.display.stop()
        if self.parent is not None:
            self.closed, self.parent = self.parent, None
            return self.closed.close(status)
        if status == "KILLED":
            console.print("Interrupted.")
        return status


def _calls_own_code(config: DictConfig) -> bool:
    """Whether a run calls functions or classes that are not shipped."""
    plain = schema.plain(config)
    nodes = [plain["similarity"]["function"], plain["optimizer"]["keras"]]
    nodes += [plain["corpus"]["reader"], plain["vectors"]["source"]]
    nodes += [plain["encoder"]["function"], plain["loss"]["function"]]
    return any(contents.functions("", node) for node in nodes)


def _is_ours(launcher: DictConfig) -> bool:
    return launcher._target_.endswith(".WorkersLauncher")


class SweepCallback(Callback):
    """Hydra calls it before the jobs."""

    def on_run_start(self, config: DictConfig, **kwargs) -> None:
        with ending_the_program():
            UNDER_WAY.get().begin_run(config)

    def on_multirun_start(self, config: DictConfig, **kwargs) -> None:
        with ending_the_program():
            UNDER_WAY.get().begin_sweep(config)


@contextmanager
def ending_the_program() -> Iterator[None]:
    """Hydra turns an exception of a callback into a warning and goes on; here it ends the program:
    a mistake of the user's with its one sentence, anything else with its traceback."""
    try:
        yield
    except (
        HydraException,
        OmegaConfBaseException,
    ) as error:  # a choice or a key that is not there: some are an OSError too
        raise SystemExit(f"zeronorm: {mistakes.sentence(error)}") from None
    except (schema.ConfigError, OSError) as error:
        raise SystemExit(f"zeronorm: {error}") from None
    except Exception as error:
        if type(error).__module__.startswith("zeronorm."):  # each a sentence
            raise SystemExit(f"zeronorm: {error}") from None
        traceback.print_exc()
        raise SystemExit(1) from None


def _perhaps(how: str) -> str:
    """What may have ended a process so."""
    return {"SIGKILL": ", perhaps for want of memory"}.get(
        how, ", ended by what it calls" if "status" in how else ""
    )


def _numbered(plan: Plan) -> list[DictConfig]:
    for number, config in zip(plan.numbers, plan.configs, strict=True):
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
    return plan.configs


def _run_job(argument: tuple[bytes, dict[str, str], bytes]) -> bytes:
    """In a worker: one job, as Hydra's own launchers run it. Returns its JobReturn, pickled."""
    shared, environment, config = argument
    os.environ.update(environment | {name: os.environ[name] for name in workers.THREADS})
    context, task, state = cloudpickle.loads(shared)
    setup_globals()
    Singleton.set_state(state)
    found = run_job(
        hydra_context=context,
        task_function=task,
        config=cloudpickle.loads(config),
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )
    if found.status == JobStatus.FAILED:  # an exception may hold what cannot be pickled
        found = _failed(failure.of(found._return_value), list(found.overrides or ()))
    return cloudpickle.dumps(found)


def _failed(error: RunFailed, overrides: list[str]) -> JobReturn:
    found = JobReturn(status=JobStatus.FAILED, overrides=overrides)
    found.return_value = error
    return found


def _words(flags: Mapping[str, Any]) -> list[str]:
    """Hydra's flags as it reads them; before the overrides, between which it takes none."""
    said = ((f"--{name.replace('_', '-')}", value) for name, value in flags.items())
    return [flag if value is True else f"{flag}={value}" for flag, value in said]


def _require_composable(overrides: Sequence[str], flags: Mapping[str, Any]) -> None:
    """Ends the program with one sentence, where Hydra would with several lines or a traceback."""
    if flags.keys() & {"hydra_help", "version", "experimental_rerun"}:  # which compose nothing
        return
    sweep = False if flags.keys() & {"cfg", "info"} else flags.get("multirun")
    where = (flags.get("config_dir"), flags.get("config_path"), flags.get("config_name", "config"))
    try:
        mistakes.require_composable(overrides, sweep, *where)
    except schema.ConfigError as error:
        raise SystemExit(f"zeronorm: {error}") from None
