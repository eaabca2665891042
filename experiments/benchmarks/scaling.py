"""How the minutes of a sweep grow with its runs and its workers: measured, and as a model says that
knows two sweeps of 48 runs only. For machines of more cores the model alone.

python experiments/benchmarks/scaling.py [--small --to FOLDER]
"""

import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import pairs
import sweep
from zeronorm.report import script
from zeronorm.sweep.workers import Queue

STUDY = ("study=quick_ablation", "examples=500")
TWICE = ("init=pretrained", "seed=0,1")  # 48 runs, in which each graph comes twice
GROWN = {  # {runs: overrides}
    144: ("seed=0,1,2",),
    300: ("seed=range(0,25)", "init=pretrained", "trainable=true"),
}
CORES = (16, 64)
ONCE = ("compilation", "autopsy")  # phases that the later runs of a graph are nearly spared


@dataclass(frozen=True)
class Costs:
    """What one sweep cost, in seconds.

    start, end: before its first run and after its last; end: of each run.
    runs: {kind: seconds of a run without the phases of ONCE}.
    first, later: {(kind, phase): seconds} of the phases of ONCE, in the first run of a graph and in
        a later one.
    """

    start: float
    end: float
    runs: dict[str, float]
    first: dict[tuple[str, str], float]
    later: dict[tuple[str, str], float]

    def minutes(self, jobs: pd.DataFrame, workers: int, slower: float = 1.0) -> float:
        """Of a sweep of these jobs, whose queue is the sweep's own.

        slower: how many times as long a run takes beside the others.
        """
        graphs, kinds = graphs_of(jobs), kinds_of(jobs)
        queue, free, known = Queue(graphs), np.zeros(workers), defaultdict[int, set](set)
        while True:
            worker = int(free.argmin())
            if (job := queue.take(worker)) is None:
                return (self.start + float(free.max()) + self.end * len(jobs)) / 60
            graph, kind = graphs[job], kinds[job]
            once = self.later if graph in known[worker] else self.first
            known[worker].add(graph)
            cost = self.runs[kind] + sum(once[kind, phase] for phase in ONCE)
            free[worker] += slower * cost


def graphs_of(runs: pd.DataFrame) -> list[tuple]:
    return list(zip(runs["trainable"], runs["similarity"], runs["numerics"], strict=True))


def kinds_of(runs: pd.DataFrame) -> list[str]:
    """What the cost of a run goes by."""
    outcome = np.where(runs["outcome"] == "nan", "dies", "lives")
    return [" ".join(of) for of in zip(runs["trainable"], runs["numerics"], outcome, strict=True)]


def costs(made: sweep.Sweep) -> Costs:
    """Of a sweep with one worker."""
    runs, clocks = made.runs, made.clocks
    begun, ended = min(c["begun"] for c in clocks), max(c["ended"] for c in clocks)
    alone, seen = defaultdict(list), set()
    first: dict[Any, list[float]] = defaultdict(list)
    later: dict[Any, list[float]] = defaultdict(list)
    order = np.argsort([clock["begun"] for clock in clocks])
    graphs, kinds = graphs_of(runs), kinds_of(runs)
    for number in order:
        clock, kind = clocks[number], kinds[number]
        spent = {phase: clock["seconds"].get(phase, 0.0) for phase in ONCE}
        alone[kind].append(clock["ended"] - clock["begun"] - sum(spent.values()))
        for phase, seconds in spent.items():
            (later if graphs[number] in seen else first)[kind, phase].append(seconds)
        seen.add(graphs[number])
    keys = first.keys() | later.keys()
    return Costs(
        start=begun - made.begun,
        end=(made.begun + made.wall - ended) / len(clocks),
        runs={kind: float(np.median(values)) for kind, values in alone.items()},
        first={key: float(np.median(first.get(key, [0.0]))) for key in keys},
        later={key: float(np.median(later.get(key, [0.0]))) for key in keys},
    )


def main(small: bool, to: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        narrow = pairs.small_run(Path(folder)) if small else []
        few = ["numerics=kernels", "similarity=clamp_squares", "trainable=true"] if small else []

        def made(name: str, workers: int, *overrides: str) -> sweep.Sweep:
            launcher = f"hydra.launcher.workers={workers}"
            home = Path(folder, name)
            return sweep.made(home, *STUDY, launcher, *narrow, *few, *overrides)

        one, two = (made(f"workers{workers}", workers, *TWICE) for workers in (1, 2))
        known, jobs = costs(one), two.runs
        busy = [sum(c["ended"] - c["begun"] for c in found.clocks) for found in (one, two)]
        slower = busy[1] / busy[0]
        measured = {(len(jobs), 1): one, (len(jobs), 2): two}
        for count, overrides in () if small else GROWN.items():
            measured[count, 2] = made(f"runs{count}", 2, *overrides)
        rows: list[dict[str, Any]] = [
            {
                "runs": runs,
                "workers": workers,
                "minutes": found.wall / 60,
                "predicted": known.minutes(found.runs, workers, slower if workers > 1 else 1.0),
            }
            for (runs, workers), found in measured.items()
        ]
        for cores in CORES:
            for found in list(measured.values())[1:]:
                minutes = known.minutes(found.runs, cores, slower)
                rows.append(
                    {
                        "runs": len(found.runs),
                        "workers": cores,
                        "minutes": None,
                        "predicted": minutes,
                    }
                )
        script.write(to, "scaling", rows, slower=slower, sweeps=len(measured))


if __name__ == "__main__":
    main(**vars(script.arguments(__file__, __doc__)))
