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
        launcher = self.launcher
        assert launcher is not None  # it is made by what is called above
        quiet = UNDER_WAY.get().quietly(launcher.launch)
        launcher.launch = quiet  # type: ignore[method-assign]  # of the one object, for any class

    @staticmethod
    def split_arguments(overrides, max_batch_size):
        from zeronorm.sweep.session import UNDER_WAY

        parent = UNDER_WAY.get().parent
        assert parent is not None  # `begin_sweep` has made it
        return [parent.overrides] if parent.overrides else []

    def validate_batch_is_legal(self, batch):
        """Composed and validated before, in `zeronorm.sweep`; composing takes a tenth of a second a
        job."""
