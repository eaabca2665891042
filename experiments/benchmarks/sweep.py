"""The 48 runs of `zeronorm train study=quick_ablation` against one naive process a run (naive.py),
of which a sample is timed: two runs of each of the six kinds trainable or frozen x numerics, half
before the sweep, half after.

python experiments/benchmarks/sweep.py [--small --to FOLDER]
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
from mlflow import MlflowClient

import pairs

HERE = Path(__file__).parent
ZERONORM = str(Path(sys.executable).with_name("zeronorm"))
KINDS: list[tuple[str, str]] = [
    (trainable, numerics)
    for trainable in ("true", "false")
    for numerics in ("kernels", "xla", "tf1")
]
SAMPLE: list[tuple[str, str]] = [("pretrained", "clamp_product"), ("uniform", "clamp_squares")]
RUNS_OF_A_KIND = 8  # 48 runs, 6 kinds


def main(small: bool, to: Path) -> None:
    kinds, samples, narrowed, alike = KINDS, SAMPLE, [], []
    with tempfile.TemporaryDirectory() as folder:
        if small:  # one run, naive and ours
            kinds, samples, alike = KINDS[:1], SAMPLE[:1], pairs.small_run(Path(folder))
            narrowed = [
                f"{name}={value}" for name, value in factors(*kinds[0], *samples[0]).items()
            ]
        home = Path(folder, "home")
        # made before, as a user's would be
        MlflowClient(f"sqlite:///{folder}/naive.db").search_experiments()
        naive = [
            run for sample in samples[:1] for run in naive_runs(Path(folder), kinds, sample, alike)
        ]
        start = time.perf_counter()
        # nothing cached, no store
        subprocess.run(
            [ZERONORM, "train", "study=quick_ablation", f"home={home}", *alike, *narrowed],
            check=True,
        )
        ours = time.perf_counter() - start
        naive += [
            run for sample in samples[1:] for run in naive_runs(Path(folder), kinds, sample, alike)
        ]
        runs = pd.read_csv(next(home.glob("outputs/*/runs.csv")), keep_default_na=False, dtype=str)
    report(naive, ours, runs, to)


def report(naive: list[dict], ours: float, runs: pd.DataFrame, to: Path) -> None:
    """Writes the table.

    naive: the naive runs, as `naive_runs` gives them.
    ours: wall seconds of the sweep.
    runs: of the sweep, its runs.csv.
    """
    runs_of = pd.DataFrame([run | run["seconds"] for run in naive]).groupby(
        ["trainable", "numerics"], sort=False
    )
    naive_sweep = RUNS_OF_A_KIND * runs_of["wall"].mean().sum()
    shared = naive_sweep - RUNS_OF_A_KIND * runs_of["corpus and vectors"].mean().sum()
    rows = [
        {
            "variant": "naive, one process a run",
            "minutes": naive_sweep / 60,
            "ratio": naive_sweep / ours,
        },
        {
            "variant": "the same, corpus and vectors for nothing",
            "minutes": shared / 60,
            "ratio": shared / ours,
        },
        {"variant": "zeronorm train study=quick_ablation", "minutes": ours / 60, "ratio": 1.0},
    ]
    of_kinds = [
        {
            "kind": f"{'trainable' if trainable == 'true' else 'frozen'}, {numerics}",
            "seconds": list(group["wall"]),
        }
        for (trainable, numerics), group in runs_of
    ]
    phases = pd.DataFrame([run["seconds"] for run in naive]).mean().to_dict()
    same = [same_outcome(run, runs) for run in naive]
    pairs.write(
        to,
        "sweep",
        rows,
        naive_runs=len(naive),
        same_outcomes=sum(same),
        kinds=of_kinds,
        naive_phases=phases,
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
    main(**vars(pairs.arguments(__doc__)))
