"""Hydra's door to `zeronorm.workers`: Hydra looks for launchers in this package only."""

from collections.abc import Sequence

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class WorkersLauncher(Launcher):
    """hydra/launcher=workers: a sweep's jobs in worker processes; workers and threads as in the YAML file."""

    def __init__(self, workers: int | None, threads: int | None) -> None:
        self.workers, self.threads = workers, threads  # read by zeronorm.sweep, which starts the processes first

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context, self.task, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from zeronorm import sweep

        return sweep.launch(self.context, self.task, [list(overrides) for overrides in job_overrides])
