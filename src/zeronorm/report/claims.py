"""What the question of 2017, its edits and its answer claim, each judged by runs of the study
`claims`.

A claim is a selection of runs and a test of each. Where the test holds for every seed under every
numerics the claim is confirmed; under some, confirmed only under those; under none, refuted, or,
where it reports an observation, not reproduced.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from rich.console import Console
from rich.padding import Padding

BASELINE = {  # the question's own condition, in the study `claims`
    "trainable": "true",
    "init": "pretrained",
    "similarity": "clamp_product",
    "optimizer": "adam",
    "examples": "1000",
    "training.name": "quick",
    "training.batch": "10",
    "vectors.normalise": "False",
    "vectors.dtype": "float32",
    "vectors.zero_share": "",
    "vectors.zero_word_share": "",
    "init.norm": "",
}
# one zero title, met late
LATE = {"vectors.zero_share": "0.01", "training.batch": "1", "examples": "200"}


def select(runs: pd.DataFrame, **differences: str) -> pd.DataFrame:
    """The runs that differ from the baseline in exactly these factors (dots written as __)."""
    wanted = BASELINE | {name.replace("__", "."): value for name, value in differences.items()}
    return runs[np.logical_and.reduce([runs[name] == value for name, value in wanted.items()])]


def dies(run: Mapping) -> bool:
    return run["outcome"] == "nan"


def survives(run: Mapping) -> bool:
    return run["outcome"] == "finite"


def ranks(run: Mapping) -> bool:
    """Finite, and better than chance by half: it trained."""
    return survives(run) and run["hits_at_10"] > 1.5 * _chance(run)


def _chance(run: Mapping) -> float:
    return 10 / int(run["titles"])


@dataclass(frozen=True)
class Claim:
    """number, text: as numbered and reported.
    shows: the runs that decide.
    holds: whether one of them agrees.
    sentence: of those runs, what they show.
    otherwise: the verdict where none agrees.
    only_where_it_dies: judged under the numerics alone whose baseline goes to NaN, because
        elsewhere there is nothing to cure."""

    number: int
    text: str
    shows: Callable[[pd.DataFrame], pd.DataFrame]
    holds: Callable[[Mapping], bool]
    sentence: Callable[[pd.DataFrame, pd.DataFrame], str]
    otherwise: str = "refuted"
    only_where_it_dies: bool = False


@dataclass(frozen=True)
class Judgement:
    """A claim's verdict, its sentence, and the ids of the runs that show it, one per numerics (the
    first seed)."""

    claim: Claim
    verdict: str
    sentence: str
    run_ids: tuple[str, ...]


def _per_numerics(runs: pd.DataFrame, say: Callable[[Mapping], str]) -> str:
    """'3/3 NaN under xla' for each numerics: what the runs of each say, counted."""
    parts = []
    for numerics, group in runs.groupby("numerics", sort=False):
        counted = group.apply(say, axis=1).value_counts()
        parts.append(
            ", ".join(f"{n}/{len(group)} {what}" for what, n in counted.items())
            + f" under {numerics}"
        )
    return "; ".join(parts)


def _outcomes(runs: pd.DataFrame) -> str:
    return _per_numerics(runs, lambda run: "NaN" if dies(run) else "finite")


def _steps(runs: pd.DataFrame) -> str:
    """'title rows in step 0, kernels in step 1' of the runs that died, where they all agree; else
    the ranges."""
    dead = runs[runs["outcome"] == "nan"]

    def span(column: str) -> str:
        steps = sorted({int(step) for step in dead[column] if step != ""})
        return (
            "never"
            if not steps
            else f"step {steps[0]}"
            if len(steps) == 1
            else f"steps {steps[0]} to {steps[-1]}"
        )

    return (
        f"first weight in {span('first_nan_observed')}, encoder's kernels in"
        f" {span('encoder_nan_observed')}"
    )


def _change(run: Mapping, weight: str) -> float:
    """Norm just before it was lost, over the norm at the start."""
    last = run[f"norm/{weight}_last_finite"]
    return float(last) / float(run[f"norm/{weight}_start"]) if last != "" else np.nan


KERNELS = ("convolution/kernel", "dense/kernel")


def _late(runs: pd.DataFrame) -> pd.DataFrame:
    found = [
        select(
            runs,
            **{name.replace(".", "__"): value for name, value in LATE.items()},
            optimizer=o,
            init__norm=n,
        )
        for o in ("adam", "sgd")
        for n in ("", "0.3")
    ]
    dead = pd.concat(found)
    return dead[dead["encoder_nan_observed"] != ""]


def _shrinking(runs: pd.DataFrame, shown: pd.DataFrame) -> str:
    lived = [int(step) for step in shown["encoder_nan_observed"]]
    if not lived:
        return "No run died late enough to have a trend."
    changes = {
        weight: [_change(run, weight) for _, run in shown.iterrows()]
        for weight in (*KERNELS, "titles")
    }
    spans = ", ".join(
        f"{weight} {min(values):.3f} to {max(values):.3f}" for weight, values in changes.items()
    )
    return (
        "Tried: one zero title in batches of 1, so that death comes late, with Adam and SGD and"
        f" the vectors' norm as it is and 0.3: in the {len(lived)} runs whose encoder died (after"
        f" {min(lived)} to {max(lived)} steps) the norms just before, over those at the start, were"
        f" {spans}; then everything is lost in one step."
    )


def _loss(runs: pd.DataFrame, shown: pd.DataFrame) -> str:
    def say(run: Mapping) -> str:
        if survives(run):
            return "no NaN"
        lost = int(run["loss_nonfinite_steps"])
        return (
            "NaN loss"
            if lost
            else "finite loss" + (", 0 at the end" if float(run["last_finite_loss"]) == 0 else "")
        )

    return (
        f"{_per_numerics(shown, say)}: TensorFlow 1.x's maximum(0, NaN) was 0, which turns a NaN"
        " hinge into 0; today's is NaN."
    )


def _twenty(runs: pd.DataFrame) -> pd.DataFrame:
    """The question's smallest case."""
    return select(runs, examples="20", training__name="question")


CLAIMS = (
    Claim(
        number=1,
        text="Conv1D and Dense weights go to NaN even with 20 examples.",
        shows=_twenty,
        holds=lambda run: run["encoder_nan_observed"] != "",
        sentence=lambda runs, shown: (
            f"20 examples, 10 epochs: {_outcomes(shown)}; {_steps(shown)}."
        ),
        otherwise="not reproduced",
    ),
    Claim(
        number=2,
        text="With more data the embedding weights go to NaN too.",
        shows=lambda runs: select(runs),
        holds=lambda run: run["nonfinite/words"] > 0 and run["nonfinite/titles"] > 0,
        sentence=lambda runs, shown: (
            f"1,000 examples: {_outcomes(shown)}; where it dies, the title rows are in fact the"
            " first to go, with any number of examples, and by the end"
            f" {int(shown['nonfinite/words'].max())} values of the word matrix are lost, against"
            f" {int(_twenty(runs)['nonfinite/words'].max())} with 20 examples."
        ),
        otherwise="not reproduced",
    ),
    Claim(
        number=3,
        text="The weights get smaller and smaller until they are NaN.",
        shows=_late,
        holds=lambda run: all(_change(run, weight) < 1 for weight in KERNELS),
        sentence=_shrinking,
        otherwise="not reproduced",
    ),
    Claim(
        number=4,
        text="The loss itself never is NaN; it is zero once the weights are NaN.",
        shows=lambda runs: select(runs),
        holds=lambda run: (
            dies(run)
            and int(run["loss_nonfinite_steps"]) == 0
            and float(run["last_finite_loss"]) == 0
        ),
        sentence=_loss,
        otherwise="not reproduced",
    ),
    Claim(
        number=5,
        text="SGD instead of Adam changes nothing.",
        shows=lambda runs: select(runs, optimizer="sgd"),
        holds=dies,
        sentence=lambda runs, shown: f"SGD: {_outcomes(shown)}; {_steps(shown)}.",
        only_where_it_dies=True,
    ),
    Claim(
        number=6,
        text="The input vectors contain no NaN; normalising them does not help.",
        shows=lambda runs: select(runs, vectors__normalise="True"),
        holds=dies,
        sentence=lambda runs, shown: (
            "A run refuses vectors that hold a NaN, so these hold none; rows divided by their"
            f" norms, zero rows left as they are: {_outcomes(shown)}; {_steps(shown)}."
        ),
        only_where_it_dies=True,
    ),
    Claim(
        number=7,
        text="Casting float64 vectors to float32 does not help.",
        shows=lambda runs: select(runs, vectors__dtype="float64"),
        holds=dies,
        sentence=lambda runs, shown: (
            f"float64 vectors, cast on entry: {_outcomes(shown)}; {_steps(shown)}."
        ),
        only_where_it_dies=True,
    ),
    Claim(
        number=8,
        text="With trainable=False no NaN appears and training is smooth.",
        shows=lambda runs: select(runs, trainable="false"),
        holds=ranks,
        sentence=lambda runs, shown: (
            f"Frozen embeddings: {_outcomes(shown)}; hits@10 after one epoch is"
            f" {shown['hits_at_10'].mean():.3f} on average, chance {_chance(shown.iloc[0]):.3f}."
        ),
    ),
    Claim(
        number=9,
        text="trainable=True with uniform random initial vectors trains smoothly.",
        shows=lambda runs: select(runs, init="uniform"),
        holds=ranks,
        sentence=lambda runs, shown: (
            f"Uniform vectors: {_outcomes(shown)}; hits@10 after one epoch is"
            f" {shown['hits_at_10'].mean():.3f} on average, chance {_chance(shown.iloc[0]):.3f}."
        ),
    ),
    Claim(
        number=10,
        text="The cause is many all-zero rows in one of the gensim-trained matrices.",
        shows=lambda runs: select(runs, init="repaired"),
        holds=survives,
        sentence=lambda runs, shown: (
            f"The zero title rows filled and nothing else changed: {_outcomes(shown)}; as they"
            f" were: {_outcomes(select(runs))}. Many is not needed: one zero title of"
            f" {int(shown['titles'].iloc[0])} kills as well (C3's runs)."
        ),
        only_where_it_dies=True,
    ),
    Claim(
        number=11,
        text="Zero word rows leave the convolution's and the dense layer's output at zero, so the"
        " quotient is 0/0.",
        shows=lambda runs: select(runs, init="repaired", vectors__zero_word_share="1.0"),
        holds=lambda run: (
            dies(run) and run["encoder_nan_observed"] == "0" and int(run["zero_texts"]) > 0
        ),
        sentence=lambda runs, shown: (
            f"Every word row set to zero, titles repaired: {_outcomes(shown)}; {_steps(shown)},"
            " before any title row. As a cause of the question's NaN it is refuted: of its texts"
            f" {select(runs)['zero_texts'].iloc[0]} have only zero rows, and with the titles"
            " repaired the zero word rows alone leave"
            f" {int((select(runs, init='repaired')['outcome'] == 'finite').sum())} of"
            f" {len(select(runs, init='repaired'))} runs finite."
        ),
    ),
    Claim(
        number=12,
        text="Adding epsilon to the denominator, numerator / (denominator + epsilon), avoids it.",
        shows=lambda runs: select(runs, similarity="add_to_product"),
        holds=survives,
        sentence=lambda runs, shown: (
            f"{_outcomes(shown)}; {_steps(shown)}, as with the question's own formula. Epsilon"
            " inside the root (add_to_squares) does:"
            f" {_outcomes(select(runs, similarity='add_to_squares'))}."
        ),
        only_where_it_dies=True,
    ),
)


def judged(runs: pd.DataFrame) -> list[Judgement]:
    """C1 to C12.

    runs: of the study `claims`, from `report.read_table`.
    Raises ValueError if a claim has no runs.
    """
    return [_judge(claim, runs) for claim in CLAIMS]


def _judge(claim: Claim, runs: pd.DataFrame) -> Judgement:
    shown = claim.shows(runs)
    if not len(shown):
        raise ValueError(f"C{claim.number} has no runs: the study `claims` is not complete.")
    baseline = select(runs)
    deadly = set(baseline[baseline["outcome"] == "nan"]["numerics"])
    considered = shown[shown["numerics"].isin(deadly)] if claim.only_where_it_dies else shown
    by_numerics = {
        numerics: all(claim.holds(run) for _, run in group.iterrows())
        for numerics, group in considered.groupby("numerics", sort=False)
    }
    holding = [numerics for numerics, held in by_numerics.items() if held]
    if len(holding) == shown["numerics"].nunique():
        verdict = "confirmed"
    elif holding:
        verdict = f"confirmed only under {', '.join(holding)}"
    else:
        verdict = claim.otherwise
    first = shown.sort_values("seed", kind="stable").drop_duplicates("numerics")
    return Judgement(claim, verdict, claim.sentence(runs, shown), tuple(first["run_id"]))


@dataclass(frozen=True)
class Step:
    """One step of C13, the answer to the open question.

    text: what to do.
    shown: the sentence of what it shows here, of all runs.
    """

    text: str
    shown: Callable[[pd.DataFrame], str]


def _finite(runs: pd.DataFrame, **change: str) -> str:
    shown = select(runs, **change)
    return f"{int((shown['outcome'] == 'finite').sum())} of {len(shown)} runs finite"


def _audited(runs: pd.DataFrame) -> str:
    first = select(runs).iloc[0]
    return (
        f"No NaN, and {first['zero_titles']} of {first['titles']} title rows exactly zero: the"
        " fault, before the first step."
    )


def _watched(runs: pd.DataFrame) -> str:
    base = select(runs)
    dead = base[base["outcome"] == "nan"].iloc[0]
    return (
        f"The title matrix is the first to go, in step {dead['first_nan_observed']}; the encoder,"
        f" which the question looked at, in step {dead['encoder_nan_observed']}. The loss tells"
        " late or never (C4)."
    )


def _alone(runs: pd.DataFrame) -> str:
    by_numerics = select(runs).groupby("numerics", sort=False)
    norms = "; ".join(f"{numerics}: {of['gradient'].iloc[0]}" for numerics, of in by_numerics)
    return f"Norm at a zero row, for an incoming gradient of 1, by numerics: {norms}."


def _predicted(runs: pd.DataFrame) -> str:
    exact = (runs["first_nan_predicted"] == runs["first_nan_observed"]) & (
        runs["encoder_nan_predicted"] == runs["encoder_nan_observed"]
    )
    return f"Both steps exact in {int(exact.sum())} of {len(runs)} runs of this study."


STEPS = (
    Step(
        "Audit what goes in: NaN, infinities, zero rows, smallest norm of every matrix"
        " (`audit.json` of a run).",
        _audited,
    ),
    Step(
        "Watch every weight and gradient at every step, not the loss (`nonfinite/...`,"
        " `nan_events.json`).",
        _watched,
    ),
    Step(
        "Name the rows that went, not only the tensor (`row_deaths.csv`).",
        lambda runs: (
            "In step 0 only rows that started at zero: the titles that are no single word."
        ),
    ),
    Step(
        "Change one factor at a time.",
        lambda runs: (
            f"Frozen: {_finite(runs, trainable='false')} (C8). Uniform:"
            f" {_finite(runs, init='uniform')} (C9). Zero rows filled:"
            f" {_finite(runs, init='repaired')} (C10)."
        ),
    ),
    Step(
        "Take the suspect's gradient alone, at the suspect input (`zero_row.gradient` of every"
        " run).",
        _alone,
    ),
    Step(
        "Run the same step under another compiler (`numerics=kernels,xla`).",
        lambda runs: f"They disagree: {_outcomes(select(runs))}.",
    ),
    Step(
        "Take the failing step apart: which operation, line, example and row (`autopsy.md` of a"
        " run that died, `zeronorm autopsy RUN_ID` of any).",
        lambda runs: (
            "`SqrtGrad`, at the similarity's root, for every pair of an example and a zero title,"
            " and for no other."
        ),
    ),
    Step(
        "Predict from the explanation, then check (`nan.predicted_step` of every run).",
        _predicted,
    ),
    Step(
        "Put the cure through the same test.",
        lambda runs: (
            f"The answer's epsilon: {_finite(runs, similarity='add_to_product')}. Epsilon inside"
            f" the root: {_finite(runs, similarity='add_to_squares')} (C12)."
        ),
    ),
)


def steps(runs: pd.DataFrame) -> list[tuple[str, str]]:
    """C13, the open question: (step to take, what it showed here), in the order in which to take
    them."""
    return [(step.text, step.shown(runs)) for step in STEPS]


OPEN = "(open question) What steps do people take when they see this?"


def print_claims(
    judgements: list[Judgement],
    asked: Mapping[int, str],
    shown: list[tuple[str, str]],
    source: str,
    console: Console,
) -> None:
    """On the terminal.

    asked: {claim: its sentence on the TensorFlow that the question ran}.
    shown: the steps of C13.
    source: where the runs come from.
    """
    # which wraps the indented sentences wherever it writes
    console = Console(file=console.file, highlight=False)
    for judgement in judgements:
        console.print(f"[bold]C{judgement.claim.number}  {judgement.claim.text}[/bold]")
        console.print(
            Padding(f"[bold]{judgement.verdict}.[/bold] {judgement.sentence}", (0, 0, 0, 5))
        )
        if judgement.claim.number in asked:
            console.print(Padding(asked[judgement.claim.number], (0, 0, 0, 5)))
        console.print(Padding(f"runs {' '.join(judgement.run_ids)}", (0, 0, 0, 5)), style="dim")
    console.print(f"[bold]C13  {OPEN}[/bold]")
    console.print(Padding("[bold]answered[/bold], by the steps below.", (0, 0, 0, 5)))
    for number, (step, what) in enumerate(shown, start=1):
        console.print(Padding(f"{number}. {step}\n   [italic]{what}[/italic]", (0, 0, 0, 5)))
    console.print(source)


def markdown(judgements: list[Judgement], asked: Mapping[int, str]) -> str:
    """The claims as a table, and the runs that show them. asked: as in `print_claims`."""
    lines = ["| | claim | verdict | what the runs show |", "|---|---|---|---|"]
    for judgement in judgements:
        claim = judgement.claim
        said = f"{judgement.sentence} {asked.get(claim.number, '')}".strip()
        lines.append(f"| C{claim.number} | {claim.text} | **{judgement.verdict}** | {said} |")
    lines += [
        f"| C13 | {OPEN} | **answered** | The steps below. |",
        "",
        "Runs (MLflow ids, first seed, by numerics):",
        "",
    ]
    lines += [
        f"- C{j.claim.number}: {', '.join(f'`{run_id}`' for run_id in j.run_ids)}"
        for j in judgements
    ]
    return "\n".join(lines)


def verdicts_markdown(judgements: list[Judgement]) -> str:
    """The claims and their verdicts alone."""
    lines = ["| | claim | verdict |", "|---|---|---|"]
    lines += [f"| C{j.claim.number} | {j.claim.text} | {j.verdict} |" for j in judgements]
    return "\n".join([*lines, f"| C13 | {OPEN} | answered |"])


def steps_markdown(shown: list[tuple[str, str]]) -> str:
    """The steps of C13 as a table."""
    lines = ["| | step | where it would have shown the fault |", "|---|---|---|"]
    return "\n".join(
        [*lines, *(f"| {n} | {step} | {what} |" for n, (step, what) in enumerate(shown, start=1))]
    )
