"""What experiments/releases has measured on other releases of TensorFlow, as tables and
sentences."""

import csv
import json

from zeronorm.report.committed import existing

DIED = ("clamp_product", "add_to_product")  # the question's formula, and the published answer's
COMPILERS = {"kernels": "its kernels", "xla": "XLA"}


def data(name: str) -> dict:
    """experiments/<name>/releases.json, as collect.py wrote it."""
    return json.loads(existing(name, "releases.json").read_text())


def wheels(name: str) -> list[dict]:
    """experiments/<name>/wheels.csv: minor, since, pythons, release, uploaded."""
    with open(existing(name, "wheels.csv")) as file:
        return list(csv.DictReader(file))


def table(name: str) -> str:
    """A row for each minor release and compiler, a column for each placement."""
    rows = data(name)["rows"]
    placements = list(dict.fromkeys(row["similarity"] for row in rows))
    lines = [
        f"| release, since | Python | compiler | {' | '.join(placements)} |",
        "|---" * (3 + len(placements)) + "|",
    ]
    for wheel in wheels(name):
        since = f"{wheel['release'] or wheel['minor']}, {wheel['since'][:7]}"
        of = [row for row in rows if row["release"] == wheel["release"]]
        if not of:
            missing = f"no wheel for Python 2.7, 3.9 or 3.11 (only {wheel['pythons']})"
            lines.append(f"| {since} | {missing} |" + " |" * (1 + len(placements)))
        for compiler in dict.fromkeys(row["compiler"] for row in of):
            cells = {row["similarity"]: cell(row) for row in of if row["compiler"] == compiler}
            python = ".".join(of[0]["python"].split(".")[:2])
            said = " | ".join(cells[placement] for placement in placements)
            lines.append(f"| {since} | {python} | {compiler} | {said} |")
    return "\n".join(lines)


def cell(row: dict) -> str:
    """The steps of the first NaN in the titles and in the encoder, or how it came out."""
    if row["outcome"] == "not run":
        return "no XLA" if "XLA" in row["why"] else "not there"
    if row["outcome"] == "finite":
        return "finite"
    steps = ("-" if step is None else str(step) for step in (row["titles"], row["encoder"]))
    return f"**{', '.join(steps)}**"


def losses(name: str) -> str:
    """The loss of the first five steps, with the question's formula."""
    lines = ["| release | compiler | loss of the first five steps |", "|---|---|---|"]
    shown: dict[tuple, list[str]] = {}
    for row in data(name)["rows"]:
        if row["similarity"] == DIED[0] and row["loss"]:
            said = ", ".join(map(number, row["loss"]))
            shown.setdefault((row["compiler"], said), []).append(row["release"])
    for (compiler, said), of in shown.items():
        lines.append(f"| {', '.join(of)} | {compiler} | {said} |")
    return "\n".join(lines)


def number(value: float | str) -> str:
    return "NaN" if isinstance(value, str) else f"{value:.5g}"


COSINES = ("clamp_product", "add_to_product", "add_to_squares", "clamp_squares", "keras_normalize")


def operations(name: str) -> str:
    """The operations alone; releases that compute the same share a line."""
    found = json.loads(existing(name, "operations.json").read_text())
    groups: dict[tuple[str, str], list[str]] = {}
    for release, compilers in found.items():
        for compiler, of in compilers.items():
            if "failed" in of["of NaN"]:
                continue
            maximum, roots = of["of NaN"]["maximum"], of["roots"]
            cells = [_lanes(maximum[operands][0]) for operands in ("0, NaN", "NaN, 0")]
            cells += [_limit(roots[root]["0, 0"][1]) for root in ("sqrt", "rsqrt")]
            cells += [_limit(of["cosine at a zero row"][placement][1]) for placement in COSINES]
            groups.setdefault((compiler, " | ".join(cells)), []).append(release)
    lines = [
        "| release | compiler | max(0, NaN) | max(NaN, 0) | sqrt'(0) for 0 | rsqrt'(0) for 0 | "
        + " | ".join(COSINES)
        + " |",
        "|---" * (6 + len(COSINES)) + "|",
    ]
    lines += [
        f"| {of[0]}{f' to {of[-1]}' if len(of) > 1 else ''} | {compiler} | {cells} |"
        for (compiler, cells), of in groups.items()
    ]
    return "\n".join(lines)


def _lanes(letters: str) -> str:
    """What an operation gave in each lane."""
    names = {"N": "NaN", "0": "0"}
    return " or ".join(names[letter] for letter in sorted(set(letters))) + (
        ", by lane" if len(set(letters)) > 1 else ""
    )


def _limit(value: float | str) -> str:
    return f"**{value.replace('nan', 'NaN')}**" if isinstance(value, str) else f"{value + 0:.3g}"


def verdict(name: str) -> str:
    """Which releases kill the question's model, and which hide it."""
    rows = [row for row in data(name)["rows"] if row["similarity"] in DIED]
    by = {
        compiler: {
            outcome: _releases(rows, compiler, outcome) for outcome in ("NaN", "finite", "not run")
        }
        for compiler in COMPILERS
    }
    kernels, xla = by["kernels"], by["xla"]
    assert not set(kernels["NaN"]) & set(kernels["finite"]), "the two formulas differ"
    text = (
        f"The question's model, with its own formula and with the published answer's, dies under"
        f" TensorFlow's own kernels in every release tried from {kernels['NaN'][0]} to"
        f" {kernels['NaN'][-1]} ({len(kernels['NaN'])} of them), and in none from"
        f" {kernels['finite'][0]} to {kernels['finite'][-1]} ({len(kernels['finite'])})."
        f" Under XLA it dies in {len(xla['NaN'])} of the {len(xla['NaN'] + xla['finite'])} releases"
        f" that have XLA for the CPU, {xla['NaN'][0]} to {xla['NaN'][-1]}"
    )
    return text + (f"; not in {', '.join(xla['finite'])}." if xla["finite"] else ".")


def _releases(rows: list[dict], compiler: str, outcome: str) -> list[str]:
    """Each once, in order."""
    return list(
        dict.fromkeys(
            row["release"]
            for row in rows
            if row["compiler"] == compiler and row["outcome"] == outcome
        )
    )


def emulation(name: str) -> str:
    """This project's numerics=tf1 beside TensorFlow 1.3.0, condition by condition."""
    lines = [
        "| condition | steps | NaN in step (titles, encoder): TensorFlow | emulated |"
        " loss, first steps and last | largest difference: loss | norms |",
        "|---" * 7 + "|",
    ]
    for row in data(name)["emulation"]:
        real, ours = (
            cell({"outcome": _outcome(row, key), **_steps(row, key)}) for key in ("", "_emulated")
        )
        loss = ", ".join(map(number, [*row["loss"], row["loss_end"]]))
        lines.append(
            f"| {row['condition']} | {row['steps']} | {real} | {ours} | {loss} |"
            f" {row['loss_difference']:.1e} | {row['norm_difference']:.1e} |"
        )
    return "\n".join(lines)


def _steps(row: dict, key: str) -> dict:
    return {part: row[f"{part}{key}"] for part in ("titles", "encoder")}


def _outcome(row: dict, key: str) -> str:
    return "finite" if all(step is None for step in _steps(row, key).values()) else "NaN"


def emulation_verdict(name: str) -> str:
    """In how many conditions the emulation agrees, and how closely."""
    rows = data(name)["emulation"]
    same = sum(_steps(row, "") == _steps(row, "_emulated") for row in rows)
    loss, norm = (max(row[f"{part}_difference"] for row in rows) for part in ("loss", "norm"))
    return (
        f"In {same} of {len(rows)} conditions TensorFlow {rows[0]['release']} and `numerics=tf1`"
        f" agree in the outcome and in every first NaN step. Where both are finite, the loss"
        f" differs by {loss:.1e} at most and the norms by {norm:.1e}, relatively."
    )


def libraries(name: str) -> str:
    """The functions that people call, each at a row that is zero, tiny and huge."""
    rows = json.loads(existing(name, "libraries.json").read_text())["rows"]
    sizes = list(next(iter(rows[0]["found"].values())))
    lines = [
        f"| library | function | compiler | {' | '.join(sizes)} | safe form |",
        "|---" * (4 + len(sizes)) + "|",
    ]
    for row in rows:
        alike: dict[str, list[str]] = {}
        for way, found in row["found"].items():
            alike.setdefault(" | ".join(map(_at, found.values())), []).append(way)
        safe = "" if is_safe(row) else f"`{row['safe']}`"
        for said, ways in alike.items():
            lines.append(
                f"| {row['library']} | `{row['function']}` | {', '.join(ways)} | {said} | {safe} |"
            )
    return "\n".join(lines)


def _at(found: dict) -> str:
    """'value; gradient', what is not finite in bold."""
    if "failed" in found:
        return "does not compile"
    said = [
        f"**{x}**" if isinstance(x, str) else f"{x:.3g}"
        for x in (found["value"], found["gradient"])
    ]
    return "; ".join(said).replace("nan", "NaN")


def is_safe(row: dict) -> bool:
    """Whether no gradient of a function is NaN or infinite."""
    return not any(
        isinstance(at.get("gradient"), str)
        for found in row["found"].values()
        for at in found.values()
    )


def libraries_verdict(name: str) -> str:
    """Which functions of which libraries are not safe."""
    rows = json.loads(existing(name, "libraries.json").read_text())["rows"]
    shipped = [row for row in rows if "max(sum(x * x)" not in row["function"]]
    unsafe = [row for row in shipped if not is_safe(row)]
    by_library: dict[str, list[str]] = {}
    for row in unsafe:
        by_library.setdefault(row["library"], []).append(f"`{row['function']}`")
    said = "; ".join(f"{library}: {', '.join(of)}" for library, of in by_library.items())
    return (
        f"{len(unsafe)} of {len(shipped)} calls tried, functions and usual expressions, have a"
        " gradient that is not finite at a zero, a tiny or a huge row, under some compiler."
        f" {said}."
    )
