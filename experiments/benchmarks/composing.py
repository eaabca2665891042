"""What it costs to compose the configs of a thousand runs, beside Hydra one by one; and how long a
command that only reads takes.

python experiments/benchmarks/composing.py [rounds] [--small --to FOLDER]
"""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig

from zeronorm import checkout
from zeronorm import config as schema
from zeronorm.report import script
from zeronorm.sweep import plan

SWEEP, CONFIGS = ["study=quick_ablation", "seed=range(0,21)"], 1008
SAMPLE = 21  # every so many of them Hydra composes one by one, in the order of the sweep
COMMANDS = (["--help"], ["claims"])


def master() -> DictConfig:
    """The sweep's own config."""
    loader = GlobalHydra.instance().config_loader()
    return loader.load_configuration("config", SWEEP, run_mode=RunMode.MULTIRUN)


def one_by_one(config: DictConfig, jobs: list[list[str]]) -> None:
    loader = GlobalHydra.instance().config_loader()
    for job in jobs:
        loader.load_sweep_config(config, job)


def planned(config: DictConfig, jobs: list[list[str]]) -> None:
    """As `zeronorm train` does: composed, compared with the schema, and given an identity."""
    plan.planned(config, jobs, [], False, frozenset())


def run(command: list[str]) -> None:
    asked = [sys.executable, "-m", "zeronorm", *command]
    subprocess.run(asked, check=True, stdout=subprocess.DEVNULL)


def spent(turn: Callable[[], None]) -> tuple[float, float]:
    """(CPU seconds, seconds) of a turn and the processes that it waits for."""

    def cpu() -> float:
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(of.ru_utime + of.ru_stime for of in used)

    before, start = cpu(), time.perf_counter()
    turn()
    return cpu() - before, time.perf_counter() - start


def row(variant: str, times: list[tuple[float, float]], count: int, of: int) -> dict:
    """Of `of` things, from the times of `count` of them: medians and quartiles over the rounds."""
    found: dict = {"variant": variant}
    for name, values in zip(("cpu_s", "seconds"), np.array(times).T * of / count, strict=True):
        low, middle, high = np.percentile(values, [25, 50, 75])
        found |= {name: middle, f"{name}_low": low, f"{name}_high": high}
    return found


def main(rounds: int, small: bool, to: Path) -> None:
    schema.register()
    times: dict[str, list[tuple[float, float]]] = {}
    with initialize_config_dir(str(checkout.conf_dir()), version_base="1.3"):
        config = master()
        jobs = plan.expand(config)
        assert len(jobs) == CONFIGS
        sample, kept = jobs[:: CONFIGS // 2 if small else SAMPLE], jobs[:: 84 if small else 1]
        variants = {
            "hydra, one by one": (partial(one_by_one, config, sample), len(sample), CONFIGS),
            "this project": (partial(planned, config, kept), len(kept), CONFIGS),
            **{
                f"zeronorm {' '.join(command)}": (partial(run, command), 1, 1)
                for command in COMMANDS
            },
        }
        for _ in range(rounds):
            for name, (turn, _, _) in variants.items():
                times.setdefault(name, []).append(spent(turn))
    rows = [row(name, times[name], count, of) for name, (_, count, of) in variants.items()]
    script.write(to, "composing", rows, rounds=rounds, configs=CONFIGS)


if __name__ == "__main__":
    main(**vars(script.arguments(__file__, __doc__, rounds=5)))
