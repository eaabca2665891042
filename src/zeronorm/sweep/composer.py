"""The configs of a sweep's jobs, equal to those that Hydra composes one by one. That reads every
file again for every job; here each combination of choices is composed once, and what else a job
sets is set in a copy."""

import pickle
from collections.abc import Sequence

from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException


class Composer:
    """Composes the jobs of one sweep.

    loader: Hydra's.
    master: the sweep's own config, with Hydra's node.
    """

    def __init__(self, loader: ConfigLoader, master: DictConfig):
        assert isinstance(loader, ConfigLoaderImpl)  # the only one that Hydra has
        self.loader, self.master = loader, master
        self.parser = OverridesParser.create()
        self.parsed: dict[str, Override] = {}
        self.groups: dict[str, bool] = {}  # of each key that is overridden, whether it is a group
        # {a job's choices: their config, and the same without Hydra's node, pickled}
        self.bases: dict[tuple[str, ...], tuple[bytes, bytes]] = {}

    def composed(self, job: Sequence[str]) -> tuple[DictConfig, DictConfig]:
        """The config of a job's overrides, as Hydra's `load_sweep_config` gives it, and the same
        without Hydra's node. Raises what that raises."""
        try:
            found = self._set_in_a_copy(job)
        except (
            HydraException,
            OmegaConfBaseException,
            ValueError,
        ):  # Hydra says itself what is wrong
            found = None
        if found is not None:
            return found
        config = self.loader.load_sweep_config(self.master, list(job))
        return config, without_hydra(config)

    def _set_in_a_copy(self, job: Sequence[str]) -> tuple[DictConfig, DictConfig] | None:
        """`composed`; None if it is not certain to be what Hydra would make of it."""
        overrides = [self._override(line) for line in job]
        typed = [self._override(line) for line in self.master.hydra.overrides.hydra]
        if self.master.hydra.searchpath or any(map(_is_particular, typed + overrides)):
            return None
        choices = [one for one in overrides if self._is_choice(one)]
        values = [one for one in overrides if not self._is_choice(one)]
        pickled = self._base(tuple(str(one.input_line) for one in choices))
        tested = any(one.is_add() or one.is_delete() for one in values)  # what is there already
        if tested and ("hydra" in " ".join(job) or b"hydra" in pickled[1]):
            return None  # a value may refer to Hydra's node, which is not yet what it will be
        config, own = map(pickle.loads, pickled)
        for one in (config, own):
            self.loader._apply_overrides_to_config(values, one)
            OmegaConf.copy_cache(from_config=self.master, to_config=one)
        self._note(config, overrides, choices)
        return config, own

    def _override(self, line: str) -> Override:
        if line not in self.parsed:
            self.parsed[line] = self.parser.parse_overrides([line])[0]
        return self.parsed[line]

    def _is_choice(self, override: Override) -> bool:
        """Whether it has to be there when the files are merged: the choice of one, or a setting of
        Hydra's, which are few. All others Hydra applies afterwards too."""
        key = str(override.key_or_group)
        if key not in self.groups:
            self.groups[key] = self.loader.repository.group_exists(key)
        of_files = self.groups[key] and not isinstance(override.value(), dict)
        return of_files or override.is_hydra_override()

    def _base(self, choices: tuple[str, ...]) -> tuple[bytes, bytes]:
        if choices not in self.bases:
            config = self.loader.load_sweep_config(self.master, list(choices))
            self.bases[choices] = pickle.dumps(config), pickle.dumps(without_hydra(config))
        return self.bases[choices]

    @staticmethod
    def _note(config: DictConfig, overrides: list[Override], choices: list[Override]) -> None:
        """What Hydra's node says of a job: all its overrides, where that of its choices is."""
        task, job = config.hydra.overrides.task, config.hydra.job
        for override in choices:
            if not override.is_hydra_override():
                task.pop()
        own = [override for override in overrides if not override.is_hydra_override()]
        task.extend([override.input_line for override in own])
        job.override_dirname = get_overrides_dirname(own, **job.config.override_dirname)


def _is_particular(override: Override) -> bool:
    """Whether Hydra has to take an override together with all others of its job: it changes
    Hydra's node as a whole or where its files are, or compares a value there."""
    key = override.key_or_group
    compares = override.is_delete() and override.value() is not None
    return (
        override.is_sweep_override()
        or key in ("hydra", "hydra.searchpath")
        or (override.is_hydra_override() and compares)
    )


def without_hydra(config: DictConfig) -> DictConfig:
    """A copy of the config, less Hydra's own node."""
    plain = config.copy()
    with open_dict(plain):
        plain.pop("hydra", None)
    return plain
