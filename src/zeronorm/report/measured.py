"""What the benchmarks and the autopsy's suite have measured, as tables and sentences."""

import json
from collections import Counter

from zeronorm.report.committed import existing

MEASURES = {  # of the benchmarks' rows: what the column says, and how
    "ms": ("ms a step", "{:.1f}"),
    "ms_small": ("ms a step, 10,000 rows", "{:.1f}"),
    "ms_large": ("ms a step, 1,000,000 rows", "{:.1f}"),
    "growth": ("growth", "{:.2f}"),
    "speed": ("times as fast", "{:.2f}"),
    "speed_large": ("times as fast as Keras there", "{:.0f}"),
    "cost": ("cost", "{:.0%}"),
    "share": ("share of the training", "{:.1%}"),
    "training_s": ("training, s", "{:.2f}"),
    "mlflow_s": ("MLflow, s", "{:.3f}"),
    "distance": ("largest distance of a weight", "{:.1e}"),
    "cpu_s": ("CPU s", "{:.1f}"),
    "seconds": ("s", "{:.1f}"),
    "minutes": ("minutes", "{:.1f}"),
    "ratio": ("times this project's minutes", "{:.2f}"),
    "predicted": ("minutes by the model", "{:.1f}"),
}


def benchmark_data(name: str) -> dict:
    """experiments/benchmarks/<name>.json, as the benchmark wrote it."""
    return json.loads(existing("benchmarks", f"{name}.json").read_text())


def benchmark(name: str) -> str:
    """The benchmark's rows as a table: medians, with quartiles where there are any."""
    rows = benchmark_data(name)["rows"]
    columns = [key for key in rows[0] if not key.endswith(("_low", "_high"))]

    def cell(row: dict, key: str) -> str:
        if key not in MEASURES or row[key] is None:
            return str(row[key] or "")
        text = MEASURES[key][1].format(row[key])
        if f"{key}_low" in row and row[f"{key}_low"] != row[f"{key}_high"]:
            text += " ({} to {})".format(
                *(MEASURES[key][1].format(row[f"{key}_{end}"]) for end in ("low", "high"))
            )
        return text

    labels = [MEASURES[key][0] if key in MEASURES else key for key in columns]
    lines = ["| " + " | ".join(labels) + " |", "|---" * len(labels) + "|"]
    return "\n".join(
        [*lines, *("| " + " | ".join(cell(row, key) for key in columns) + " |" for row in rows)]
    )


def phases(name: str) -> str:
    """Where the seconds of the benchmark's naive runs went, on average."""
    phases = sorted(benchmark_data(name)["naive_phases"].items(), key=lambda item: -item[1])
    total = sum(seconds for _, seconds in phases)
    lines = [f"| {phase} | {seconds:.1f} | {seconds / total:.0%} |" for phase, seconds in phases]
    return "\n".join(["| phase | seconds a run | share |", "|---|---|---|", *lines])


def sweep_phases(name: str) -> str:
    """Where the seconds of the benchmark's workers went, start and end of the sweep included."""
    found = benchmark_data(name)
    phases = sorted(found["phases"].items(), key=lambda item: -item[1])
    total = sum(seconds for _, seconds in phases)
    lines = [f"| {phase} | {seconds:.1f} | {seconds / total:.0%} |" for phase, seconds in phases]
    whole = f"| {found['workers']} workers, from the command to its end | {total:.1f} | 100% |"
    return "\n".join(["| phase | seconds | share |", "|---|---|---|", *lines, whole])


def sweep_memory(name: str) -> str:
    """The most memory that the benchmark's sweeps took."""
    peaks: dict[str, dict[str, float]] = benchmark_data(name)["peaks"]
    said = {
        "command": "peak of the command, GB",
        "worker": "of a worker, GB",
        "together": "of all at once, GB",
    }
    lines = [
        f"| {variant} | " + " | ".join(f"{peak[what]:.2f}" for what in said) + " |"
        for variant, peak in peaks.items()
    ]
    head = "| variant | " + " | ".join(said.values()) + " |"
    return "\n".join([head, "|---" * (1 + len(said)) + "|", *lines])


def step_pieces(name: str) -> str:
    """Where the time of a recorded step goes, under each numerics: pieces that sum to it."""
    pieces: dict[str, dict[str, float]] = benchmark_data(name)["pieces"]
    used = list(pieces)
    lines = [
        f"| {piece} | " + " | ".join(f"{pieces[one][piece]:.1f}" for one in used) + " |"
        for piece in pieces[used[0]]
    ]
    whole = " | ".join(f"{sum(pieces[one].values()):.1f}" for one in used)
    heads = " | ".join(f"ms, {one}" for one in used)
    lines.append(f"| the step | {whole} |")
    return "\n".join([f"| piece of a step | {heads} |", "|---" * (1 + len(used)) + "|", *lines])


def when_measured(name: str) -> str:
    found = benchmark_data(name)
    counted = {
        "rounds": "rounds",
        "naive_runs": "naive runs",
        "steps": "steps",
        "sweeps": "sweeps",
    }
    taken = next(f"{found[key]:,} {name}, " for key, name in counted.items() if key in found)
    return taken + where_measured(found)


def accuracy(name: str) -> str:
    """How far the weights of a benchmark moved, and how far off the norms were."""
    found = benchmark_data(name)
    return (
        f"In {found['steps']:,} steps with gradients of 1e-8 to 1 the weights move by up to"
        f" {found['moved']:.2f}. The norm of the table that is recorded is off by at most"
        f" {found['norm_off']:.0e} of itself in any of them, that of its update by"
        f" {found['update_off']:.0e}."
    )


def where_measured(found: dict) -> str:
    """Date, commit, hardware and versions of what a script measured."""
    dirty = " with uncommitted changes" if found["git.dirty"] == "true" else ""
    return (
        f"{found['date']}, commit {found['git.commit'][:12]}{dirty}; {found['hardware']};"
        f" {found['versions']}."
    )


def suite_data(name: str) -> dict:
    """experiments/<name>/suite.json, as suite.py wrote it."""
    return json.loads(existing(name, "suite.json").read_text())


def suite(name: str) -> str:
    """experiments/<name>/suite.json as a table: each case under three ways to watch a training."""
    lines = [
        "| case | cause | zeronorm.Autopsy | enable_check_numerics | TerminateOnNaN |",
        "|---|---|---|---|---|",
    ]
    for row in suite_data(name)["rows"]:
        mode = ", XLA" if row["jit_compile"] else ""
        cause = (
            f"{row['birth']}{', ' + row['operation'] if row['operation'] else ''}"
            if row["birth"]
            else "none: healthy"
        )
        checked, stopped = row["check_numerics"]["says"], row["terminate_on_nan"]["says"]
        if isinstance(checked, dict):
            checked = f"{checked['operation']}{', the line' if checked['line'] == 'marked' else ''}"
        if isinstance(stopped, dict):
            stopped = f"stops after step {stopped['step']}, {stopped['lost'] or 'no'} values lost"
        cells = [
            f"[{row['case'].replace('_', ' ')}]({row['thread']})",
            cause + mode,
            _suite_cell(row),
        ]
        lines.append("| " + " | ".join([*cells, str(checked), str(stopped)]) + " |")
    return "\n".join(lines)


def _suite_cell(row: dict) -> str:
    found = row["autopsy"]
    if "right" not in found:
        return str(found["says"])
    said, wrong = found["says"], [what for what, right in found["right"].items() if not right]
    line = ", the line" if said["line"] == "marked" else ""
    return f"step {said['step']}, {said['operation']}{line}" + (
        f"; **wrong: {', '.join(wrong)}**" if wrong else ""
    )


def suite_verdict(name: str) -> str:
    """The suite's table in sentences."""
    bugs = [row for row in suite_data(name)["rows"] if row["birth"]]
    healthy = [row for row in suite_data(name)["rows"] if not row["birth"]]
    right = sum(all(row["autopsy"].get("right", {"": False}).values()) for row in bugs)
    named = [row for row in bugs if isinstance(row["check_numerics"]["says"], dict)]
    lined = [row for row in named if row["check_numerics"]["says"]["line"] == "marked"]
    gradients = sum(row["birth"] == "gradient" for row in bugs)
    found = sum(row["birth"] == "gradient" for row in lined)
    stopped = [row for row in bugs if isinstance(row["terminate_on_nan"]["says"], dict)]
    late = sum(row["terminate_on_nan"]["says"]["lost"] > 0 for row in stopped)
    ways = ("autopsy", "check_numerics", "terminate_on_nan")
    alarms = {way: sum(row[way]["alarm"] for row in healthy) for way in ways}
    uncompiled = sum(
        row["check_numerics"]["says"] == "does not compile under XLA"
        for row in suite_data(name)["rows"]
    )
    births = Counter(row["birth"] for row in bugs)
    return (
        f"{len(bugs)} bugs ({', '.join(f'{number} {birth}' for birth, number in births.items())})"
        f" and {len(healthy)} healthy look-alikes. `zeronorm.Autopsy` is right in {right} of"
        f" {len(bugs)}, in step, birth, operation, line, examples, rows and in what each compiler"
        f" makes of the step, with {alarms['autopsy']} false alarms. `enable_check_numerics` names"
        f" an operation in {len(named)}, with the user's line among its frames in {len(lined)},"
        f" {found} of the {gradients} births in a gradient among them; it cannot compile in"
        f" {uncompiled} of all, and raises {alarms['check_numerics']} false alarms."
        f" `TerminateOnNaN` stops {len(stopped)} trainings, {late} of them after weights were lost,"
        f" and raises {alarms['terminate_on_nan']}."
    )


def watching(name: str) -> str:
    """How long an autopsy of the question's full model takes, from a benchmark."""
    seconds = benchmark_data(name)["autopsy_seconds"]
    return ", ".join(f"{key} {value:.0f} s" for key, value in seconds.items())
