"""The README blocks that are rendered from the committed report.

A block stands between `<!-- begin KIND STUDY -->` and `<!-- end -->`. `refreshed` renders every
block of a text again from the committed files; the tests hold the READMEs against it, so no number
in a block can differ from the data.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pandas as pd
import yaml

from zeronorm import checkout
from zeronorm.report import (
    asked,
    claims,
    committed,
    measured,
    noise,
    prediction_table,
    present,
    releases,
    reproduction,
    single_steps,
    tables,
)
from zeronorm.report import conclusions as reading
from zeronorm.report.committed import (
    ReportError,
    committed_runs,
    conditions,
    existing,
    provenance,
    ranks,
    repeats,
    reproductions,
)
from zeronorm.report.noise import Spread

METRIC_LABELS = {
    "hits_at_1": "hits@1",
    "mrr": "MRR",
    "hits_at_10": "hits@10",
}


def _provenance_line(name: str) -> str:
    p = provenance(name)
    seeds = ", ".join(map(str, p["seeds"]))
    dirty = " with uncommitted changes" if p["dirty"] else ""
    over = (
        f", {p['taken_over']} of them taken over from an earlier sweep" if p["taken_over"] else ""
    )
    plural = ["s" if p["runs"] > 1 else "", "s" if "," in seeds else ""]
    return (
        f"{p['runs']} run{plural[0]} in {p['minutes']} minutes{over}, seed{plural[1]} {seeds},"
        f" {p['date']}, commit {p['commit']}{dirty}; {p['hardware']}; {p['versions']}."
    )


def _peers(name: str) -> str:
    """The study's conditions beside what others reach on the same task: TF-IDF, measured in the
    study itself, and the systems of peers.json."""
    table = _with_intervals(name)
    factors = tables.varying(table)
    tfidf = provenance(name)["tfidf_centroid"]
    rows: list[tuple[str, str, Mapping, Mapping]] = [
        ("TF-IDF, nearest centroid", "scikit-learn, in this study", tfidf, {})
    ]
    for peer in _peers_data(name)["rows"]:
        of = pd.DataFrame({metric: peer[metric] for metric in METRIC_LABELS})
        made = f"{peer['package']}, {peer['options']}"
        deviations = {metric: f" ± {deviation:.3f}" for metric, deviation in of.std().items()}
        rows.append((peer["system"], made, of.mean(), deviations))
    for _, row in table.iterrows():
        who = ", ".join(tables.said(factor, row[factor]) for factor in factors if row[factor] != "")
        means = {metric: row[f"{metric}_mean"] for metric in METRIC_LABELS}
        spreads = {metric: present.spread(row, metric) for metric in METRIC_LABELS}
        rows.append((f"**the question's network: {who}**", "", means, spreads))
    lines = [
        "| system | made with | " + " | ".join(METRIC_LABELS.values()) + " |",
        "|---|---|" + "---|" * len(METRIC_LABELS),
    ]
    for who, made, mean, spread in sorted(rows, key=lambda row: -row[2]["mrr"]):
        cells = [f"{mean[metric]:.3f}{spread.get(metric, '')}" for metric in METRIC_LABELS]
        lines.append(f"| {who} | {made} | " + " | ".join(cells) + " |")
    seeds = len(_peers_data(name)["seeds"])
    note = (
        f"±: standard deviation of {seeds} seeds; in brackets: 95 % interval by bootstrap over"
        " titles and seeds. The nearest centroid has neither seeds nor options."
    )
    return "\n".join([*lines, "", note])


def _peers_data(name: str) -> dict:
    """experiments/<name>/peers.json, as peers.py wrote it."""
    return json.loads(existing(name, "peers.json").read_text())


def _peers_measured(name: str) -> str:
    found = _peers_data(name)
    tried = ", ".join(f"{peer['system']} {peer['tried']}" for peer in found["rows"])
    seeds = ", ".join(map(str, found["seeds"]))
    return f"Options tried: {tried}; seeds {seeds}. {measured.where_measured(found)}"


def _studies(_: str) -> str:
    """Every study of conf/study that is reported: its question, its cost, how it came out; for a
    text in experiments/."""
    lines = ["| study | question | runs, minutes | NaN |", "|---|---|---|---|"]
    for path in _study_files():
        asked = re.search(r"^# Question: +(.+)$", path.read_text(), re.MULTILINE)
        assert asked, f"{path} has no line '# Question: ...'"
        question = asked[1]
        found, table = provenance(path.stem), conditions(path.stem)
        link, cost = f"[{path.stem}]({path.stem}/README.md)", f"{found['minutes']:.0f}"
        dead = f"{(table['nan_runs'] > 0).sum()} of {len(table)} conditions"
        lines.append(f"| {link} | {question} | {found['runs']}, {cost} | {dead} |")
    return "\n".join(lines)


def _formulas(_: str) -> str:
    """Every placement of conf/similarity: the formula with which its file begins, its epsilon."""
    lines = ["| similarity | formula | epsilon | shipped by |", "|---|---|---|---|"]
    for path in sorted((checkout.conf_dir() / "similarity").glob("*.yaml")):
        text = path.read_text()
        found, formula = yaml.safe_load(text), text.splitlines()[0].removeprefix("# ")
        epsilon = f"{found['epsilon']:g}" if "epsilon" in found else ""
        shipped = ", ".join(found.get("shipped_by", []))
        shown = formula.replace("|", "\\|")
        lines.append(f"| `{found['name']}` | {shown} | {epsilon} | {shipped} |")
    return "\n".join(lines)


def _studies_verdict(_: str) -> str:
    """The same in a sentence, and whether the steps were as predicted."""
    runs = pd.concat([committed_runs(path.stem) for path in _study_files()])
    dead = runs[runs["outcome"] == "nan"]
    first, encoder = dead["first_nan_observed"], dead["encoder_nan_observed"]
    usual, both = ((first == "0") & (encoder == step) for step in ("1", "0"))
    return (
        f"{runs['study'].nunique()} studies, {len(runs):,} runs, of which {len(dead):,} end in NaN:"
        f" {usual.sum():,} in steps 0 and 1, {both.sum():,} with both in step 0,"
        f" {(~usual & ~both).sum():,} otherwise; in {tables.exact(runs).sum():,} both steps, or"
        " none, are as predicted before training."
    )


def _study_files() -> list[Path]:
    return sorted((checkout.conf_dir() / "study").glob("*.yaml"))


def _noise(name: str) -> str:
    """The tolerance of the quality columns, and where it comes from."""
    made = repeats(name)
    runs = committed_runs(name)
    here = committed.spread(name, runs, elsewhere=False)
    if here is None:
        return (
            f"{len(made)} of at least {noise.REPEATS} repeats are made, each by `zeronorm reproduce"
            f" {name} --noise`. Until then `zeronorm reproduce` accepts no difference that a table"
            " would show."
        )
    text = (
        f"From the report and {here.repeats} repeats, whose starts are its own rounded otherwise."
        f" Half of the conditions have a tolerance of at most {_tolerances(here)}: {noise.CELL:g}"
        " standard deviations of the difference between two makings, the condition's own, drawn"
        " towards the pooled one where that is larger. Their mean may move by"
        f" {_shifts(here)}: {noise.SHIFT:g} standard deviations."
    )
    there = committed.spread(name, runs, elsewhere=True)
    if there is not None and there.elsewhere:
        text += (
            f" On another processor than the report's it is {_tolerances(there)}, and for the mean"
            f" {_shifts(there)}: how far {there.repeats} repeats there lie from the report."
        )
    return f"{text} Measured by {'; '.join(_made(made))}."


def _made(repeats: Sequence[dict]) -> list[str]:
    """How the repeats of a noise.json were made, those that differ in their rounding alone as
    one."""
    roundings: dict[str, list[str]] = {}
    for one in repeats:
        command, _, rounding = one["command"].rpartition(" rounding=")
        where = f"{one['date']}, commit {one['commit']}, {one['hardware']}"
        how = f"`{command or one['command']}` ({where}"
        roundings.setdefault(how, []).append(rounding)
    return [
        f"{how}; rounding={', '.join(numbers)})" if all(numbers) else f"{how})"
        for how, numbers in roundings.items()
    ]


def _tolerances(spread: Spread) -> str:
    medians = spread.scale.median() * noise.CELL
    return ", ".join(f"{METRIC_LABELS[name]} {medians[name]:.2g}" for name in noise.SHIFTED)


def _shifts(spread: Spread) -> str:
    found = ((name, noise.SHIFT * spread.shift[name]) for name in noise.SHIFTED)
    return ", ".join(f"{METRIC_LABELS[name]} {value:.2g}" for name, value in found)


def _reproductions(name: str) -> str:
    """The reproduction log as a table."""
    lines = [
        "| date | commit | machine | another than the report's | command | runs | minutes | agree"
        " | FAIL |",
        "|" + "---|" * 9,
    ]
    for entry in reproductions(name):
        agree = reproduction.said(entry["agree"])
        if entry["repeats"] == 0:
            agree += " (no noise known)"
        where = (entry["hardware"], "yes" if entry["elsewhere"] else "no", f"`{entry['command']}`")
        cost = (entry["runs"], entry.get("minutes", "-"))  # earlier ones did not keep them
        cells = (entry["date"], entry["commit"], *where, *cost, agree, entry["FAIL"])
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) if len(lines) > 2 else "None logged yet."


def _conclusions(name: str) -> str:
    """What the Reading says, judged by the report."""
    found = committed.judged(name)
    return reading.markdown(found) if found else "None is written down for this study."


def _with_intervals(name: str) -> pd.DataFrame:
    """The conditions, with the intervals of their quality where the report has ranks."""
    return present.with_intervals(conditions(name), ranks(name))


def _judged(name: str) -> list[claims.Judgement]:
    return claims.judged(committed_runs(name), single_steps.shown("single_steps"))


def _listed(columns: str) -> list[str]:
    return [column.strip() for column in columns.split(",") if column.strip()]


BLOCKS: dict[str, Callable[[str, str], str]] = {  # (study, what stands after the colon) -> text
    "dead_zones": lambda name, _: present.zones_markdown(conditions(name)),
    "conclusions": lambda name, _: _conclusions(name),
    "summary": lambda name, rows: present.summary(
        _with_intervals(name), *([_listed(rows)] if rows else [])
    ),
    "table": lambda name, columns: present.markdown(_with_intervals(name), _listed(columns)),
    "provenance": lambda name, _: _provenance_line(name),
    "peers": lambda name, _: _peers(name),
    "peers_measured": lambda name, _: _peers_measured(name),
    "studies": lambda name, _: _studies(name),
    "formulas": lambda name, _: _formulas(name),
    "studies_verdict": lambda name, _: _studies_verdict(name),
    "outcomes": lambda name, _: present.outcomes(conditions(name)),
    "verdict": lambda name, _: present.verdict(conditions(name)),
    "noise": lambda name, _: _noise(name),
    "reproductions": lambda name, _: _reproductions(name),
    "claims": lambda name, _: claims.markdown(_judged(name), asked.sentences("releases")),
    "verdicts": lambda name, _: claims.verdicts_markdown(_judged(name)),
    "conditions": lambda name, columns: claims.table(_with_intervals(name), _listed(columns)),
    "steps": lambda name, _: claims.steps_markdown(claims.steps(committed_runs(name))),
    "benchmark": lambda name, _: measured.benchmark(name),
    "accuracy": lambda name, _: measured.accuracy(name),
    "phases": lambda name, _: measured.phases(name),
    "step_pieces": lambda name, _: measured.step_pieces(name),
    "sweep_memory": lambda name, _: measured.sweep_memory(name),
    "sweep_phases": lambda name, _: measured.sweep_phases(name),
    "measured": lambda name, _: measured.when_measured(name),
    "releases": lambda name, _: releases.table(name),
    "release_losses": lambda name, _: releases.losses(name),
    "operations": lambda name, _: releases.operations(name),
    "release_verdict": lambda name, _: releases.verdict(name),
    "releases_measured": lambda name, _: measured.where_measured(releases.data(name)),
    "question": lambda name, _: asked.table(name),
    "strata": lambda name, _: prediction_table.table(name),
    "misses": lambda name, _: prediction_table.misses(name),
    "orders": lambda name, only: prediction_table.orders(name, _listed(only)),
    "emulation": lambda name, _: releases.emulation(name),
    "emulation_verdict": lambda name, _: releases.emulation_verdict(name),
    "libraries": lambda name, _: releases.libraries(name),
    "libraries_verdict": lambda name, _: releases.libraries_verdict(name),
    "suite": lambda name, _: measured.suite(name),
    "suite_verdict": lambda name, _: measured.suite_verdict(name),
    "suite_measured": lambda name, _: measured.where_measured(measured.suite_data(name)),
    "watching": lambda name, _: measured.watching(name),
    "angles": lambda name, _: single_steps.angles(name),
    "late_deaths": lambda name, _: single_steps.late_deaths(name),
    "shrinking": lambda name, _: single_steps.shrinking(name),
    "smooth": lambda name, _: single_steps.smooth(name),
    "learning": lambda name, only: single_steps.learning(name, _listed(only)),
    "single_steps_measured": lambda name, _: single_steps.when_measured(name),
    "example": lambda name, _: f"```text\n{existing(name, 'example.txt').read_text().strip()}\n```",
}


def refreshed(text: str) -> str:
    """`text` with every block `<!-- begin KIND STUDY -->` ... `<!-- end -->` rendered from
    experiments/STUDY.

    What stands after a colon, `<!-- begin table STUDY: similarity, outcome -->`, is the block's
    columns. The block of a study that is not reported stays as it is.
    """

    def render(match: re.Match) -> str:
        kind, name, more = match["kind"], match["study"], match["more"] or ""
        try:
            text = BLOCKS[kind](name, more.lstrip(": "))
        except ReportError:  # its study is not reported yet
            return match[0]
        return f"<!-- begin {kind} {name}{more} -->\n{text}\n<!-- end -->"

    pattern = r"<!-- begin (?P<kind>\w+) (?P<study>\w+)(?P<more>:[^>]*?)? -->\n.*?<!-- end -->"
    return re.sub(pattern, render, text, flags=re.DOTALL)


def documents() -> list[Path]:
    """Every text that may hold blocks."""
    experiments = committed.experiments_dir()
    return [
        experiments.parent / "README.md",
        *sorted(experiments.parent.glob("docs/*.md")),
        *sorted(experiments.glob("README.md")),
        *sorted(experiments.glob("[!.]*/README.md")),
    ]


def refresh_readmes() -> list[Path]:
    """Renders the blocks of every document again; those that have changed. Nothing is written if
    one cannot be."""
    readmes = documents()
    before = {readme: readme.read_text() for readme in readmes}
    new = {readme: refreshed(text) for readme, text in before.items()}
    changed = [readme for readme in readmes if new[readme] != before[readme]]
    for readme in changed:
        put(readme, new[readme])
    return changed


def put(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(text)
    temporary.replace(path)
