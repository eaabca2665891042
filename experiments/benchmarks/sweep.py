"""The 48 runs of `zeronorm train study=quick_ablation` against one naive process a run (naive.py),
of which a sample is timed: two runs of each of the six kinds trainable or frozen x numerics, half
before the sweep, half after.

python experiments/benchmarks/sweep.py [--small --to FOLDER]
"""

import itertools
import json
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import psutil
from mlflow import MlflowClient

import pairs
from zeronorm.report import script

HERE = Path(__file__).parent
ZERONORM = str(Path(sys.executable).with_name("zeronorm"))
KINDS: list[tuple[str, str]] = [
    (trainable, numerics)
    for trainable in ("true", "false")
    for numerics in ("kernels", "xla", "tf1")
]
SAMPLE: list[tuple[str, str]] = [("pretrained", "clamp_product"), ("uniform", "clamp_squares")]
RUNS_OF_A_KIND = 8  # 48 runs, 6 kinds
LAUNCHERS = {
    "zeronorm train study=quick_ablation": "hydra/launcher=workers",
    "the same, hydra/launcher=joblib": "hydra/launcher=joblib",
}


@dataclass(frozen=True)
class Sweep:
    """One sweep, from a home without a store or caches.

    wall: its seconds.
    begun: when it began, in seconds since the epoch.
    peaks: bytes of memory, as `peaks_of` gives them.
    folder: the sweep's.
    """

    wall: float
    begun: float
    peaks: dict[str, int]
    folder: Path

    @property
    def clocks(self) -> list[dict]:
        """What each run's seconds.json says."""
        files = sorted(self.folder.glob("*/seconds.json"))
        return [json.loads(file.read_text()) for file in files]

    @property
    def runs(self) -> pd.DataFrame:
        return pd.read_csv(self.folder / "runs.csv", keep_default_na=False, dtype=str)

    def phases(self, workers: int) -> dict[str, float]:
        """{phase: seconds}, which add up to `workers` times the wall time."""
        clocks = self.clocks
        first, last = min(c["begun"] for c in clocks), max(c["ended"] for c in clocks)
        found = {"start": workers * (first - self.begun), "autopsy": 0.0}  # no run need have died
        for clock in clocks:
            for phase, seconds in clock["seconds"].items():
                found[phase] = found.get(phase, 0.0) + seconds
        inside = sum(sum(clock["seconds"].values()) for clock in clocks)
        of_runs = sum(clock["ended"] - clock["begun"] for clock in clocks)
        return found | {
            "opening and closing the run in MLflow": of_runs - inside,
            "workers that wait": workers * (last - first) - of_runs,
            "tables and figures of the sweep": workers * (self.begun + self.wall - last),
        }


def made(home: Path, *overrides: str) -> Sweep:
    """Runs `zeronorm train` with the overrides."""
    start, begun = time.perf_counter(), time.time()
    command = subprocess.Popen([ZERONORM, "train", f"home={home}", *overrides])
    peaks = peaks_of(command)
    wall = time.perf_counter() - start
    if command.returncode:
        raise subprocess.CalledProcessError(command.returncode, command.args)
    return Sweep(wall, begun, peaks, next(home.glob("outputs/*")))


def peaks_of(command: subprocess.Popen) -> dict[str, int]:
    """Waits for the command. Returns the most bytes that were in memory: of the `command`; of the
    largest process that it started, a `worker` (VmHWM, which Linux keeps); of all of them
    `together`, looked at every two seconds, where a page that several share counts once (PSS)."""
    found: dict[int, int] = {}
    together = [0]
    ended = threading.Event()

    def look() -> None:
        for turn in itertools.count():
            if ended.wait(0.5):
                return
            with suppress(psutil.Error):
                running = [own := psutil.Process(command.pid), *own.children(recursive=True)]
                for process in running:
                    with suppress(OSError, StopIteration):
                        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
                        peak = next(line for line in lines if line.startswith("VmHWM"))
                        found[process.pid] = 1024 * int(peak.split()[1])
                if turn % 4 == 0:
                    together.append(sum(process.memory_full_info().pss for process in running))

    looking = threading.Thread(target=look)
    looking.start()
    command.wait()
    ended.set()
    looking.join()
    own = found.pop(command.pid, 0)
    largest = max(found.values(), default=0)
    return {"command": own, "worker": largest, "together": max(together)}


def main(small: bool, to: Path) -> None:
    kinds, samples, narrowed = KINDS, SAMPLE, []
    with tempfile.TemporaryDirectory() as folder:
        if small:  # one run, naive and ours
            kinds, samples, narrowed = KINDS[:1], SAMPLE[:1], pairs.small_run(Path(folder))
            chosen = factors(*kinds[0], *samples[0]).items()
        alike = list(narrowed)
        if small:
            narrowed += [f"{name}={value}" for name, value in chosen]
        # made before, as a user's would be
        MlflowClient(f"sqlite:///{folder}/naive.db").search_experiments()
        naive = naive_runs(Path(folder), kinds, samples[0], alike)
        sweeps = {
            variant: made(
                Path(folder, f"home{number}"), "study=quick_ablation", launcher, *narrowed
            )
            for number, (variant, launcher) in enumerate(LAUNCHERS.items())
        }
        for sample in samples[1:]:
            naive += naive_runs(Path(folder), kinds, sample, alike)
        report(naive, sweeps, to)


def report(naive: list[dict], sweeps: dict[str, Sweep], to: Path) -> None:
    """Writes the table.

    naive: the naive runs, as `naive_runs` gives them.
    sweeps: {variant: its sweep}, the default launcher's first.
    """
    ours = next(iter(sweeps.values()))
    runs_of = pd.DataFrame([run | run["seconds"] for run in naive]).groupby(
        ["trainable", "numerics"], sort=False
    )
    naive_sweep = RUNS_OF_A_KIND * runs_of["wall"].mean().sum()
    shared = naive_sweep - RUNS_OF_A_KIND * runs_of["corpus and vectors"].mean().sum()
    seconds = {
        "naive, one process a run": naive_sweep,
        "the same, corpus and vectors for nothing": shared,
        **{variant: sweep.wall for variant, sweep in sweeps.items()},
    }
    rows = [
        {"variant": variant, "minutes": wall / 60, "ratio": wall / ours.wall}
        for variant, wall in seconds.items()
    ]
    peaks = {
        variant: {what: peak / 1e9 for what, peak in sweep.peaks.items()}
        for variant, sweep in sweeps.items()
    }
    of_kinds = [
        {
            "kind": f"{'trainable' if trainable == 'true' else 'frozen'}, {numerics}",
            "seconds": list(group["wall"]),
        }
        for (trainable, numerics), group in runs_of
    ]
    phases = pd.DataFrame([run["seconds"] for run in naive]).mean().to_dict()
    same = [same_outcome(run, ours.runs) for run in naive]
    workers = min(len(ours.clocks), psutil.cpu_count() or 1)
    script.write(
        to,
        "sweep",
        rows,
        naive_runs=len(naive),
        same_outcomes=sum(same),
        kinds=of_kinds,
        naive_phases=phases,
        workers=workers,
        phases=ours.phases(workers),
        peaks=peaks,
    )


def factors(trainable: str, numerics: str, init: str, similarity: str) -> dict[str, str]:
    return {"trainable": trainable, "init": init, "similarity": similarity, "numerics": numerics}


def naive_runs(
    folder: Path, kinds: list[tuple[str, str]], sample: tuple[str, str], more: list[str]
) -> list[dict]:
    """One run of each kind, with its wall time from outside."""
    found = []
    for kind in kinds:
        chosen = factors(*kind, *sample)
        output = folder / f"{'-'.join(chosen.values())}.json"
        overrides = [*(f"{name}={value}" for name, value in chosen.items()), *more]
        start = time.perf_counter()
        command = [
            sys.executable,
            str(HERE / "naive.py"),
            str(output),
            str(folder / "naive.db"),
            *overrides,
        ]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        found.append(
            chosen | {"wall": time.perf_counter() - start} | json.loads(output.read_text())
        )
        print(f"{' '.join(chosen.values())}: {found[-1]['wall']:.1f} s", flush=True)
    return found


def same_outcome(naive: dict, runs: pd.DataFrame) -> bool:
    """Whether our run of the same factors ended alike: NaN in the same or no step. (The shuffling
    differs, Keras's own against ours; every batch of these runs meets a zero title, so the step
    does not depend on it.)"""
    names = ["trainable", "init", "similarity", "numerics"]
    ours = runs[(runs[names] == [naive[name] for name in names]).all(axis=1)].iloc[0]
    return ours["first_nan_observed"] == (
        "" if naive["first_nan"] is None else str(naive["first_nan"])
    )


if __name__ == "__main__":
    main(**vars(script.arguments(__file__, __doc__)))
