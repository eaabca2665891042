"""hydra/sweeper=grids: the jobs of a sweep are the union of grids, less those whose result is
there."""

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper


class GridsSweeper(BasicSweeper):
    """Hydra's basic sweeper, which takes the jobs from `zeronorm.sweep`, where they were checked
    before."""

    def __init__(self, params=None, grids=None):
        super().__init__(None, params)

    def setup(self, *, hydra_context, task_function, config) -> None:
        from zeronorm.sweep.session import UNDER_WAY

        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
        self.launcher.launch = UNDER_WAY.get().quietly(self.launcher.launch)

    def split_arguments(self, overrides, max_batch_size):
        from zeronorm.sweep.session import UNDER_WAY

        overrides = UNDER_WAY.get().parent.overrides
        return [overrides] if overrides else []

    def validate_batch_is_legal(self, batch):
        """Composed and validated before, in `zeronorm.sweep`; composing takes a tenth of a second a
        job."""
