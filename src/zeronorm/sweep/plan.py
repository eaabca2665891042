"""Which runs a sweep is to make: what Hydra's overrides and grids expand to, less those that are
there."""

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from zeronorm import checkout
from zeronorm import config as schema
from zeronorm.sweep.composer import Composer
from zeronorm.sweep.display import console


@dataclass
class Plan:
    """What a sweep is to do.

    config: of its first job.
    jobs: the configs of the runs to make;
    configs: the same with Hydra's own node, as a launcher passes them on;
    overrides: what makes each;
    numbers: their places in the sweep.
    finished: {place: run id} of the runs that are there and need no repetition.
    graphs: of each of `jobs`, what it shares with those that have the same compiled steps.
    """

    config: DictConfig
    jobs: list[DictConfig]
    configs: list[DictConfig]
    overrides: list[list[str]]
    numbers: list[int]
    finished: dict[int, str]
    graphs: list[str]

    def __str__(self) -> str:
        new, old = len(self.jobs), len(self.finished)
        taken = f", {old} finished one{'s' if old > 1 else ''} to take over" if old else ""
        return f"{new} run{'' if new == 1 else 's'} to make{taken}."

    @property
    def shared(self) -> set[str]:
        """The overrides that all of `jobs` have: they tell none from another."""
        if len(self.overrides) < 2:
            return set()
        return set.intersection(*map(set, self.overrides))

    def labels(self) -> list[str]:
        """What to call each of `jobs`: its condition, and of its other overrides those that the
        jobs do not share."""
        shared = self.shared
        named: tuple[str, ...]
        named = ("trainable=", "init=", "similarity=", "numerics=", "optimizer=")
        if len(self.jobs) == 1:  # shares with no other: these say nothing of what it trains
            named += ("study=", "autopsy=")
        return [
            " ".join(
                [
                    schema.condition(job),
                    *(o for o in own if o not in shared and not o.startswith(named)),
                ]
            )
            for job, own in zip(self.jobs, self.overrides, strict=True)
        ]


def planned(
    config: DictConfig,
    overrides: list[list[str]],
    command: Sequence[str],
    only_missing: bool,
    reported: frozenset[str],
) -> Plan:
    """The jobs of a sweep.

    overrides: of every job, as `expand` gives them.
    command: what was typed after `zeronorm`.
    only_missing: less those that the store holds a finished run of.
    reported: the config_sha of the runs of a report to which the sweep is confined; empty: it is
        not.

    Raises ConfigError if one of them cannot be run, or none is in the report.
    """
    composer = Composer(GlobalHydra.instance().config_loader(), config)
    with console.status(f"Composing {len(overrides)} runs"), _collector_off():
        configs, jobs = zip(*map(composer.composed, overrides), strict=True)
        values = [schema.plain(job) for job in jobs]
        identities = [schema.identity(job) for job in values]
    # an override sets its key in every grid of a study, and so makes configs that are no part of it
    kept = [number for number, sha in enumerate(identities) if not reported or sha[:16] in reported]
    if not kept:
        raise schema.ConfigError(
            f"None of these runs is one of the report's: '{jobs[0].study}' has other options there."
        )
    for number in kept:
        schema.validate(values[number])
    finished: dict[int, str] = {}
    if only_missing:
        from zeronorm import tracking

        wanted = {identities[number] for number in kept}
        try:
            found = tracking.finished(tracking.connect(jobs[kept[0]]), jobs[kept[0]], wanted)
        except tracking.TrackingError as error:
            raise schema.ConfigError(str(error)) from error
        _compare_code(tracking.otherwise(found.values()), command)
        finished = {
            place: found[identities[number]].info.run_id
            for place, number in enumerate(kept)
            if identities[number] in found
        }
    missing = {place: number for place, number in enumerate(kept) if place not in finished}
    return Plan(
        config=jobs[kept[0]],
        jobs=[jobs[number] for number in missing.values()],
        configs=[configs[number] for number in missing.values()],
        overrides=[overrides[number] for number in missing.values()],
        numbers=list(missing),
        finished=finished,
        graphs=[schema.graph(values[number]) for number in missing.values()],
    )


@contextmanager
def _collector_off() -> Iterator[None]:
    """No search for cycles in the block: the configs of all jobs stay, and each search, which finds
    nothing, would go through all of them."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _compare_code(said: str, command: Sequence[str]) -> None:
    """Says how the code of the runs that are taken over differs from this; a reproduction of it is
    refused unless it is asked for."""
    if said and list(command[:1]) == ["reproduce"] and "--other-code" not in command:
        raise schema.ConfigError(
            f"{said} To reproduce is to run this code: drop --only-missing, or add --other-code."
        )
    if said:
        console.print(said)


def expand(config: DictConfig) -> list[list[str]]:
    """The overrides of every job of a sweep, in order: the product of `hydra.sweeper.params`, or of
    these with each of `hydra.sweeper.grids`; what the command line sets replaces what they say. A
    job that two grids make counts once. Raises ConfigError if there is none."""
    sweeper: Any = OmegaConf.to_container(config.hydra.sweeper)
    params = sweeper.get("params") or {}
    jobs: dict[frozenset[str], list[str]] = {}
    hydra = GlobalHydra.instance()  # whose loader knows what glob(*) may choose
    parser = OverridesParser.create(hydra.config_loader() if hydra.is_initialized() else None)
    for grid in sweeper.get("grids") or [{}]:
        own = parser.parse_overrides(
            [f"{key}={value}" for key, value in {**params, **grid}.items()]
        )
        typed = parser.parse_overrides(list(config.hydra.overrides.task))
        parsed = own + typed
        for override in own + [override for override in typed if override.is_sweep_override()]:
            if override.key_or_group == "study":
                raise schema.ConfigError(
                    f"{override.input_line} sweeps over studies, which would make one run of each "
                    "instead of its sweep: train one after the other, by zeronorm train study=NAME."
                )
        for job in BasicSweeper.split_arguments(parsed, None)[0]:
            jobs.setdefault(frozenset(job), job)
    if not jobs:
        raise schema.ConfigError("This sweep has no run: an override or a grid of it has no value.")
    return list(jobs.values())


def identities(study: str) -> list[str]:
    """The identity of every run of a study, as its file says it."""
    schema.register()
    with (
        console.status(f"Composing the runs of {study}"),
        initialize_config_dir(str(checkout.conf_dir()), version_base="1.3"),
    ):
        base = compose("config", [f"study={study}"], return_hydra_config=True)
        composer = Composer(GlobalHydra.instance().config_loader(), base)
        return [schema.identity(composer.composed(job)[1]) for job in expand(base)]


def costs(plan: Plan) -> list[float]:
    """What each of its jobs will take, relative to each other, as measured on the ablation: a fixed
    part, the steps (a trainable word matrix doubles them), and tracing and compiling where the
    step's graph is new."""
    seen: set[str] = set()
    found = []
    for job, graph in zip(plan.jobs, plan.graphs, strict=True):
        found.append(
            2.0
            + (5.0 if job.trainable in (True, "words") else 2.0)
            + (0.0 if graph in seen else 4.0)
        )
        seen.add(graph)
    return found
