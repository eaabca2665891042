"""Hydra's door to `zeronorm.sweep`: Hydra looks for launchers in this package only."""

from collections.abc import Sequence

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class WorkersLauncher(Launcher):
    """hydra/launcher=workers: a sweep's jobs in worker processes."""

    def __init__(self, workers: int | None, threads: int | None) -> None:
        """Hydra passes on what the YAML file says; the processes have been started by it before, in
        zeronorm.sweep."""

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        self.context, self.task = hydra_context, task_function

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        from zeronorm.sweep.session import UNDER_WAY

        return UNDER_WAY.get().launch(
            self.context, self.task, [list(overrides) for overrides in job_overrides]
        )
