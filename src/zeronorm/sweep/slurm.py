"""What a sweep needs beside hydra/launcher=slurm: which jobs to cancel, and why one has left no
result."""

import importlib
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig

from zeronorm.config import ConfigError
from zeronorm.failure import RunFailed

COMMANDS = ("sbatch", "srun", "sacct", "scancel")  # that submitit or we call, or name


def is_slurm(launcher: DictConfig) -> bool:
    """launcher: Hydra's node."""
    return launcher._target_.endswith(".SlurmLauncher")


def require_commands() -> None:
    """Raises ConfigError if this machine has not Slurm's commands: before the sweep is in the
    store, and its corpus and vectors are built."""
    missing = [name for name in COMMANDS if shutil.which(name) is None]
    if missing:
        raise ConfigError(
            f"hydra/launcher=slurm needs Slurm's {', '.join(missing)}, not found here: start it on"
            " a login node, or use hydra/launcher=workers."
        )


def cancel_hint(folder: Path) -> str:
    """What to say of a sweep that is interrupted: its jobs are Slurm's.

    folder: the sweep's own, where submitit keeps a folder for each job.
    """
    names = (path.name for path in (folder / ".submitit").glob("*"))
    jobs = sorted({found[1] for name in names if (found := re.fullmatch(r"(\d+)(_\d+)?", name))})
    if not jobs:
        return "No job of it is known; squeue --me lists those that Slurm has."
    return f"Its jobs are Slurm's and go on: scancel {' '.join(jobs)} ends them."


@contextmanager
def settled() -> Iterator[None]:
    """While the block runs, a job of submitit's that has left no result counts as a failed run.
    submitit would raise, and nobody would wait for the others."""
    jobs = importlib.import_module("submitit.slurm.slurm")  # of the extra
    errors = importlib.import_module("submitit.core.utils")
    wait_for = jobs.SlurmJob.results

    def results(job: Any) -> list[Any]:
        try:
            return wait_for(job)
        except (errors.UncompletedJobError, errors.FailedJobError):
            state = job.get_info().get("State", "state unknown")
            failed = JobReturn(status=JobStatus.FAILED)
            failed.return_value = RunFailed(
                f"Slurm's job {job.job_id} left no result ({state}): see {job.paths.stderr}"
            )
            return [failed]

    with patch.object(jobs.SlurmJob, "results", results):
        yield
