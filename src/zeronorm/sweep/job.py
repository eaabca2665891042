"""One job of a sweep, or a run by itself: from a composed config to the store.

Whatever a run raises, it has failed: only a signal that ends the program is an interruption. So the
exit status follows from the runs.
"""

import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from zeronorm import failure, views
from zeronorm.failure import RunFailed
from zeronorm.sweep.display import console, report_progress
from zeronorm.sweep.process import adopt, interrupts

# environment variable: the MLflow run id of the sweep a job belongs to
PARENT_RUN = "ZERONORM_PARENT_RUN"
PARENT_FILE = "parent_run"  # the same in a file of the sweep's folder
DEEPEST = 5  # folders from a job's up to the sweep's


def browse_hint(config: DictConfig, experiment: str, run: str | None = None) -> str:
    """How to see the runs in a browser, or the autopsy of one.

    experiment: the id of the runs' experiment.
    """
    own = config.tracking.name == "local"
    base = f"http://127.0.0.1:{views.PORT}/" if own else f"{config.tracking.uri}/"
    if run:
        address = views.artifact(base, experiment, run, "autopsy.md")
    else:
        address = views.page(base, experiment)
    if not own:
        return f"Browse: {address}"
    home = f"ZERONORM_HOME={os.environ['ZERONORM_HOME']} " if "ZERONORM_HOME" in os.environ else ""
    installed = str(Path(sys.executable).with_name("zeronorm"))
    program = (
        "zeronorm"
        if shutil.which("zeronorm")
        else min(os.path.relpath(installed), installed, key=len)
    )
    return f"Browse: {home}{program} ui, then {address}"


def parent_run() -> str | None:
    """The run id of the sweep that this job belongs to: from the environment, or from the sweep's
    folder where a scheduler passes no environment on; None for a run by itself."""
    config = HydraConfig.get()
    if PARENT_RUN not in os.environ and config.mode == RunMode.MULTIRUN:
        # `hydra.sweep.dir` holds the date, which a job that is made again would settle anew
        for folder in list(Path(config.runtime.output_dir).parents)[:DEEPEST]:
            with suppress(OSError):
                return (folder / PARENT_FILE).read_text().strip()
    return os.environ.get(PARENT_RUN)


@contextmanager
def judged(folder: Path) -> Iterator[None]:
    """What the block raises comes out as an interruption, if the program is interrupted, and else
    as RunFailed, with the traceback in the run's folder: also SystemExit and KeyboardInterrupt,
    which the user's code may raise."""
    try:
        yield
    except RunFailed:
        raise
    except BaseException as error:
        if interrupts().interrupted():
            raise interrupts().exception() from error
        with suppress(OSError):
            (folder / "error.txt").write_text(traceback.format_exc())
        if (came := interrupts().came) is not None:
            name = signal.Signals(came).name
            raise RunFailed(f"{name} ended the run's process", interrupts().line) from error
        raise failure.of(error) from error


def job(config: DictConfig) -> None:
    """One run, from a composed config to the store. Raises RunFailed; for a run by itself
    SystemExit."""
    adopt()
    hydra_config = HydraConfig.get()
    folder = Path(hydra_config.runtime.output_dir)
    state, reason = "failed", ""
    try:
        with judged(folder):
            state, reason = _one_run(config, folder, parent_run())
    except RunFailed as failed:
        reason = str(failed)
        if hydra_config.mode == RunMode.RUN:  # Hydra would name its overrides first
            raise SystemExit(
                f"zeronorm: {failed} The traceback is in {folder}/error.txt."
            ) from None
        raise
    except BaseException:
        state = "killed"
        raise
    finally:
        with suppress(OSError):
            report_progress(folder, state, 1, 1, reason)


def _one_run(config: DictConfig, folder: Path, parent: str | None) -> tuple[str, str]:
    """Returns the run's outcome, and of a NaN when and where."""
    from zeronorm import experiment, preparation, run_autopsy, tracking
    from zeronorm.result import Result, forecast

    hydra_config = HydraConfig.get()
    number = hydra_config.job.num if parent else None
    result = Result(folder)
    client = tracking.connect(config)
    report_progress(folder, "running", 1, 0, part="preparing")
    said = 0.0

    def tell(progress: experiment.Progress) -> None:
        nonlocal said
        interrupts().check()
        if progress.done == 0 and parent is None:
            console.print(forecast(result))
        part = {0: "compiling", progress.steps: "evaluating"}.get(progress.done, "")
        if part or time.monotonic() - said > 0.5:
            said = time.monotonic()
            report_progress(folder, "running", progress.steps, progress.done, part=part)

    with tracking.tracked(
        client, config, list(hydra_config.overrides.task), parent, number
    ) as run_id:
        try:
            with judged(folder):
                with interrupts().held():
                    with result.clock("preparation"):
                        prepared = preparation.prepare(config)
                    experiment.run(prepared, result, tell)
                wanted = result.outcome == "nan" or parent is None
                if wanted if config.autopsy is None else config.autopsy:
                    report_progress(folder, "running", 1, 1, part="examining")
                    with result.clock("autopsy"):
                        run_autopsy.add(prepared, result)
        except BaseException:
            with suppress(tracking.TrackingError):  # why the run ended comes first
                tracking.log(client, run_id, result, config.tracking.points)
            raise
        with result.clock("logging"):
            tracking.log(client, run_id, result, config.tracking.points)
    with suppress(OSError):
        result.clock.write(folder / "seconds.json")
    if parent is None:
        console.print(result.story)
        if result.autopsy:
            console.print(result.autopsy, markup=False)
        console.print(f"Files: {folder}")
        console.print(f"Its autopsy again, or of another step: zeronorm autopsy {run_id}")
        experiment_id = tracking.experiment_id(client, config)
        hint = browse_hint(config, experiment_id, run_id if result.autopsy else None)
        console.print(hint, soft_wrap=True)  # a link that is wrapped by hand cannot be clicked
    assert result.outcome is not None  # the run has come to its end
    return result.outcome, _when(result.tags)


def _when(tags: dict[str, str]) -> str:
    """'step 0, as predicted, SqrtGrad at similarity.py:30', of the tags of a run that died."""
    step, predicted = tags.get("nan.first_step"), tags.get("nan.predicted_step", "none")
    if step is None:
        return ""
    foretold = "as predicted" if step == predicted else f"predicted {predicted}"
    at = f" at {tags['guilty.line']}" if "guilty.line" in tags else ""
    by = f", {tags['guilty.operation']}{at}" if "guilty.operation" in tags else ""
    return f"step {step}, {foretold}{by}"
