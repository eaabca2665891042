"""Tries what the jobs of a sweep read and import, before the first of them starts."""

import os
import signal
import traceback
from collections.abc import Sequence
from contextlib import suppress

from omegaconf import DictConfig

from zeronorm import config as schema
from zeronorm import failure
from zeronorm.failure import RunFailed
from zeronorm.sweep.display import console
from zeronorm.sweep.process import interrupts, quiet_import
from zeronorm.sweep.workers import WorkerDied, Workers


def check(jobs: Sequence[DictConfig], pool: Workers | None) -> None:
    """Raises ConfigError, with one sentence, if any of the jobs, valid each, cannot run. Builds the
    corpus and vectors they need."""
    with console.status("Opening the tracking store"):
        from zeronorm import tracking

        try:
            tracking.connect(jobs[0])
        except tracking.TrackingError as error:
            raise schema.ConfigError(str(error)) from error
    with console.status("Loading TensorFlow, building corpus and vectors (once; cached)"):
        found = [check_input(job) if pool is None else checked_apart(job, pool) for job in jobs]
    bad = found[0]
    if bad:
        console.print(f"Bad lines left out of {bad[0].file}: {len(bad)}. The first:")
        for line in bad[:5]:
            console.print(f"  {line.file}:{line.line}: {line.problem}")
    for sentence in unscored(jobs) if pool is None else pool.first(unscored, jobs):
        console.print(sentence, markup=False)


def unscored(jobs: Sequence[DictConfig]) -> list[str]:
    """Each sentence once that says why jobs will have no score. Their corpus is built."""
    from zeronorm import checks

    of_corpus = {f"{job.corpus} {job.training.evaluate_on}": job for job in jobs}
    return [sentence for sentence in map(checks.unscored, of_corpus.values()) if sentence]


def checked_apart(job: DictConfig, pool: Workers) -> list:
    """`check_input` in a worker; again in a new one if its process ended, because it may not be the
    job that did it."""
    with suppress(WorkerDied, RunFailed):
        return pool.first(check_input, job)
    try:
        return pool.first(check_input, job)
    except (WorkerDied, RunFailed) as ended:
        raise schema.ConfigError(
            f"{schema.condition(job)} cannot be run: its check ended the worker process"
            f" twice, by {ended}; look for os._exit and the like in"
            f" {job.similarity.function} and what it imports."
        ) from None


def check_input(job: DictConfig) -> list:
    """The part of `check` that needs TensorFlow: tries what the job reads and imports; builds and
    caches its corpus and vectors. Returns the corpus's bad lines.

    Raises ConfigError, with the line of the user's code that did it, whatever the check raises,
    unless it is an interruption; RunFailed if another process ended this one's.
    """
    with quiet_import():
        from zeronorm import checks, corpus, preparation, vectors
    known = (
        corpus.CorpusError,
        vectors.VectorsError,
        preparation.ExperimentError,
        schema.ConfigError,
    )
    try:
        checks.check(job)
        return preparation.load(job).corpus.bad_lines
    except BaseException as error:
        if interrupts().interrupted():
            raise
        if (came := interrupts().came) is not None:
            raise RunFailed(signal.Signals(came).name, interrupts().line) from None
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            traceback.print_exc()
        failed = failure.of(error)
        who = "" if isinstance(error, known) else f"{schema.condition(job)} cannot be run: "
        raise schema.ConfigError(f"{who}{failed}") from error
