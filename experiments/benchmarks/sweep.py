"""The ablation's 48 runs by `zeronorm train study=ablation` against one naive process a run (naive.py), of which a
sample is timed: two runs of each of the six kinds trainable or frozen x numerics, half before the sweep, half after.

python experiments/benchmarks/sweep.py
"""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

import pairs

HERE = Path(__file__).parent
ZERONORM = str(Path(sys.executable).with_name("zeronorm"))
KINDS = [(trainable, numerics) for trainable in ("true", "false") for numerics in ("kernels", "xla", "tf1")]
SAMPLE = (("pretrained", "clamp_product"), ("uniform", "clamp_squares"))
RUNS_OF_A_KIND = 8  # 48 runs, 6 kinds


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        naive, home = [], Path(folder, "home")
        # fills the cache from which the naive runs read their corpus and vectors, and warms the disk for both
        subprocess.run([ZERONORM, "train", "examples=20", "training=smoke", f"home={home}"], check=True)
        naive += naive_runs(Path(folder), home, *SAMPLE[0])
        shutil.rmtree(home / "cache")
        start = time.perf_counter()
        subprocess.run([ZERONORM, "train", "study=ablation", f"home={home}"], check=True)
        ours = time.perf_counter() - start
        naive += naive_runs(Path(folder), home, *SAMPLE[1])
        runs = pd.read_csv(next(home.glob("outputs/*/runs.csv")), keep_default_na=False, dtype=str)
    by_kind = {}
    for run in naive:
        by_kind.setdefault((run["trainable"], run["numerics"]), []).append(run["wall"])
    naive_sweep = sum(RUNS_OF_A_KIND * sum(walls) / len(walls) for walls in by_kind.values())
    same = [same_outcome(run, runs) for run in naive]
    phases = pd.DataFrame([run["seconds"] for run in naive]).fillna(0).mean()
    rows = [
        {"variant": "naive, one process a run", "minutes": naive_sweep / 60, "speed": 1.0},
        {"variant": "zeronorm train study=ablation", "minutes": ours / 60, "speed": naive_sweep / ours},
    ]
    kinds = [
        {"kind": f"{'trainable' if trainable == 'true' else 'frozen'}, {numerics}", "naive_seconds": walls}
        for (trainable, numerics), walls in by_kind.items()
    ]
    pairs.write(
        "sweep", rows, naive_runs=len(naive), same_outcomes=sum(same), kinds=kinds, naive_phases=phases.to_dict()
    )


def naive_runs(folder: Path, home: Path, init: str, similarity: str) -> list[dict]:
    """One run of each kind, with its wall time from outside."""
    found = []
    for trainable, numerics in KINDS:
        factors = {"trainable": trainable, "init": init, "similarity": similarity, "numerics": numerics}
        output = folder / f"{'-'.join(factors.values())}.json"
        overrides = [f"{name}={value}" for name, value in factors.items()]
        start = time.perf_counter()
        subprocess.run([sys.executable, str(HERE / "naive.py"), str(output), str(home), *overrides], check=True)
        found.append(factors | {"wall": time.perf_counter() - start} | json.loads(output.read_text()))
        print(f"{' '.join(factors.values())}: {found[-1]['wall']:.1f} s", flush=True)
    return found


def same_outcome(naive: dict, runs: pd.DataFrame) -> bool:
    """Whether our run of the same factors ended alike: NaN in the same or no step. (The shuffling differs, Keras's own
    against ours; every batch of these runs meets a zero title, so the step does not depend on it.)"""
    factors = ("trainable", "init", "similarity", "numerics")
    ours = runs[(runs[list(factors)] == [naive[name] for name in factors]).all(axis=1)].iloc[0]
    return ours["first_nan_observed"] == ("" if naive["first_nan"] is None else str(naive["first_nan"]))


if __name__ == "__main__":
    main()
