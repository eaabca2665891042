"""What the question of 2017, its edits and its answer claim, each judged by runs of the study
`claims`.

A claim is a selection of runs and a test of each; a claim that contrasts two conditions has runs
that must not pass. Where the test holds for every seed under every numerics the claim is confirmed;
under some, confirmed only under those; under none, refuted, or, where it reports an observation,
not reproduced. What single steps show comes from `zeronorm.report.single_steps`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from rich.console import Console
from rich.padding import Padding

from zeronorm.report import present, tables
from zeronorm.report.conclusions import Judged
from zeronorm.report.single_steps import Shown

STUDY = "claims"
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
    alike = [runs[name].to_numpy() == value for name, value in wanted.items()]
    return runs[np.logical_and.reduce(alike)]


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
        elsewhere there is nothing to cure.
    unlike: the runs of a contrast, of which none may agree.
    worded: of all runs and the verdict so far, the verdict in the words that are reported."""

    number: int
    text: str
    shows: Callable[[pd.DataFrame], pd.DataFrame]
    holds: Callable[[Mapping], bool]
    sentence: Callable[[pd.DataFrame, pd.DataFrame], str]
    otherwise: str = "refuted"
    only_where_it_dies: bool = False
    unlike: Callable[[pd.DataFrame], pd.DataFrame] = lambda runs: runs[:0]
    worded: Callable[[pd.DataFrame, str], str] = lambda runs, verdict: verdict


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
        f"first weight in {span('first_nan_observed')}, encoder in {span('encoder_nan_observed')}"
    )


def _change(run: Mapping, weight: str) -> float:
    """Norm just before it was lost, over the norm at the start."""
    last = run[f"norm/{weight}_last_finite"]
    return float(last) / float(run[f"norm/{weight}_start"]) if last != "" else np.nan


KERNELS = ("convolution/kernel", "dense/kernel")


def _one_zero_title(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs of LATE."""
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
    return pd.concat(found)


def _late(runs: pd.DataFrame) -> pd.DataFrame:
    one = _one_zero_title(runs)
    return one[one["encoder_nan_observed"] != ""]


def _shrinking(runs: pd.DataFrame, shown: pd.DataFrame) -> str:
    lived = [int(step) for step in shown["encoder_nan_observed"]]
    if not lived:
        return "No run died late enough to have a trend."
    changes = {
        weight: [_change(run, weight) for _, run in shown.iterrows()]
        for weight in (*KERNELS, "titles", "words")
    }
    spans = ", ".join(
        f"{weight} {min(values):.5f} to {max(values):.5f}" for weight, values in changes.items()
    )
    fell = ", ".join(
        f"{weight} in {sum(value < 1 for value in values)}" for weight, values in changes.items()
    )
    return (
        "Tried: one zero title in batches of 1, so that death comes late, with Adam and SGD and"
        f" the vectors' norm as it is and 0.3: in the {len(lived)} runs whose encoder died (of"
        f" {shown['seed'].nunique()} batch orders, after {min(lived)} to {max(lived)} steps) the"
        f" norms just before, over those at the start, were {spans}; they fell in {fell}. Then"
        " everything is lost in one step."
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
        f"{_per_numerics(shown, say)}: the maximum(0, NaN) of TensorFlow 1.1 to 2.1 was 0, which"
        " turns a NaN hinge into 0; today's is NaN. Under XLA the loss read 0 as well, up to 2.20"
        " (experiments/releases)."
    )


def _twenty(runs: pd.DataFrame) -> pd.DataFrame:
    """The question's smallest case."""
    return select(runs, examples="20", training__name="question")


def _loses_embeddings(run: Mapping) -> bool:
    return bool(run["nonfinite/words"] > 0 and run["nonfinite/titles"] > 0)


def _with_twenty(runs: pd.DataFrame, verdict: str) -> str:
    """What of the contrast is refuted: that it takes more data."""
    both = (of.apply(_loses_embeddings, axis=1).any() for of in (select(runs), _twenty(runs)))
    return f"{verdict}: with 20 examples too" if all(both) and verdict == "refuted" else verdict


def _embeddings(runs: pd.DataFrame, shown: pd.DataFrame) -> str:
    def counted(of: pd.DataFrame) -> str:
        lost = of.apply(_loses_embeddings, axis=1)
        return f"{int(lost.sum())} of the {int(of.apply(dies, axis=1).sum())} runs that died"

    few = _twenty(runs)
    return (
        f"1,000 examples: {_outcomes(shown)}. Words and titles hold NaN at the end of"
        f" {counted(shown)}, and of {counted(few)} with 20 examples; the first weight that goes is"
        f" the titles' in {int((few['first_nan_tensor'] == 'titles').sum())} of these. More data is"
        f" not what it takes; it takes more of the word matrix,"
        f" {int(shown['nonfinite/words'].max())} values against"
        f" {int(few['nonfinite/words'].max())}."
    )


def _but_one(runs: pd.DataFrame, verdict: str) -> str:
    """Whether many zero rows are needed."""
    one = _one_zero_title(runs)
    deadly = one[
        one["numerics"].isin(set(select(runs)[lambda of: of["outcome"] == "nan"]["numerics"]))
    ]
    enough = len(deadly) and deadly.apply(dies, axis=1).any()
    return f"{verdict}, but one is enough" if enough and verdict != "refuted" else verdict


def _in_the_data(runs: pd.DataFrame, verdict: str) -> str:
    """Whether the texts of C11 are met in the question's own condition."""
    met = (select(runs)["zero_texts"].astype(int) > 0).any()
    return verdict if met or verdict == "refuted" else "possible, not the cause here"


def _finite_quotients(dead: pd.DataFrame) -> int:
    """Of runs that died in step 0 under a compiler whose hinge keeps a NaN, in how many the loss of
    that step, which no dead weight has met, is a number."""
    kept = dead[dead["loss_nonfinite_steps"].astype(int) > 0]
    steps = kept["examples"].astype(int) / kept["training.batch"].astype(int)
    return int((kept["loss_nonfinite_steps"].astype(int) < np.ceil(steps)).sum())


def _zero_texts(runs: pd.DataFrame, shown: pd.DataFrame) -> str:
    dead, repaired = shown[shown["outcome"] == "nan"], select(runs, init="repaired")
    kept = dead[dead["loss_nonfinite_steps"].astype(int) > 0]
    return (
        f"Every word row set to zero, titles repaired: {_outcomes(shown)}; {_steps(shown)}, before"
        " any title row. The quotient is not 0/0: the guard makes it 0, and the loss of step 0 is a"
        f" number in {_finite_quotients(dead)} of the {len(kept)} runs whose loss shows a NaN at"
        " all; it is the gradient that is NaN. Of the texts here"
        f" {select(runs)['zero_texts'].iloc[0]} have only zero rows, and with the titles repaired"
        f" the zero word rows alone leave {int((repaired['outcome'] == 'finite').sum())} of"
        f" {len(repaired)} runs finite."
    )


def _answer(runs: pd.DataFrame, shown: pd.DataFrame) -> str:
    spared = select(runs)[lambda of: of["outcome"] == "finite"]["numerics"].unique()
    finite = shown[shown["numerics"].isin(spared)]
    return (
        f"{_outcomes(shown)}; {_steps(shown)}, as with the question's own formula. Judged where"
        f" there is anything to avoid: under {', '.join(spared)} the"
        f" {int((finite['outcome'] == 'finite').sum())} of {len(finite)} are finite without it too."
        " Epsilon inside the root (add_to_squares) does avoid it:"
        f" {_outcomes(select(runs, similarity='add_to_squares'))}."
    )


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
        holds=_loses_embeddings,
        unlike=_twenty,
        sentence=_embeddings,
        worded=_with_twenty,
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
            f" were: {_outcomes(select(runs))}. With one zero title of"
            f" {int(shown['titles'].iloc[0])} (C3's runs): {_outcomes(_one_zero_title(runs))}."
        ),
        only_where_it_dies=True,
        worded=_but_one,
    ),
    Claim(
        number=11,
        text="Zero word rows leave the convolution's and the dense layer's output at zero, so the"
        " quotient is 0/0.",
        shows=lambda runs: select(runs, init="repaired", vectors__zero_word_share="1.0"),
        holds=lambda run: (
            dies(run) and run["encoder_nan_observed"] == "0" and int(run["zero_texts"]) > 0
        ),
        sentence=_zero_texts,
        worded=_in_the_data,
    ),
    Claim(
        number=12,
        text="Adding epsilon to the denominator, numerator / (denominator + epsilon), avoids it.",
        shows=lambda runs: select(runs, similarity="add_to_product"),
        holds=survives,
        sentence=_answer,
        only_where_it_dies=True,
    ),
)


def judged(runs: pd.DataFrame, steps: Mapping[int, Shown]) -> list[Judgement]:
    """C1 to C12.

    runs: of the study `claims`, from `report.read_table`.
    steps: {claim: what single steps show of it}, from `single_steps.shown`.
    Raises ValueError if a claim has no runs.
    """
    runs = runs.astype(object).copy()  # one block: rows are taken of it faster
    return [_judge(claim, runs, steps.get(claim.number)) for claim in CLAIMS]


def held(reported: pd.DataFrame, found: pd.DataFrame, steps: Mapping[int, Shown]) -> list[Judged]:
    """Whether the verdicts of the report are those of other runs.

    reported, found: as `judged` takes them. steps: as there.
    """
    return [
        Judged(f"C{was.claim.number} is {was.verdict}.", was.verdict == now.verdict, now.verdict)
        for was, now in zip(judged(reported, steps), judged(found, steps), strict=True)
    ]


def _judge(claim: Claim, runs: pd.DataFrame, steps: Shown | None) -> Judgement:
    shown, unlike = claim.shows(runs), claim.unlike(runs)
    if not len(shown):
        raise ValueError(f"C{claim.number} has no runs: the study `claims` is not complete.")
    baseline = select(runs)
    deadly = set(baseline[baseline["outcome"] == "nan"]["numerics"])
    considered = shown[shown["numerics"].isin(deadly)] if claim.only_where_it_dies else shown

    def agrees(numerics: str) -> bool:
        own, other = (of[of["numerics"] == numerics] for of in (considered, unlike))
        return (
            all(claim.holds(run) for _, run in own.iterrows())
            and not any(claim.holds(run) for _, run in other.iterrows())
            and (steps is None or steps.holds.get(numerics, True))
        )

    holding = [numerics for numerics in considered["numerics"].unique() if agrees(numerics)]
    if len(holding) == shown["numerics"].nunique():
        verdict = "confirmed"
    elif holding:
        verdict = f"confirmed only under {', '.join(holding)}"
    else:
        verdict = claim.otherwise
    first = shown.sort_values("seed", kind="stable").drop_duplicates("numerics")
    sentence = " ".join([claim.sentence(runs, shown), *([steps.sentence] if steps else [])])
    return Judgement(claim, claim.worded(runs, verdict), sentence, tuple(first["run_id"]))


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


def _at_first_touch(runs: pd.DataFrame) -> str:
    dead = runs[(runs["outcome"] == "nan") & (runs["first_nan_tensor"] == "titles")]
    return f"{int((dead['first_nan_observed'] == dead['first_touch']).sum())} of {len(dead)}"


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
            "The first step that loses a title row is the first that touches one which started at"
            f" zero, in {_at_first_touch(runs)} runs that died of their titles."
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
            "No table holds it: it stands in each run that died, and"
            " `experiments/autopsy/README.md` has this bug among its cases."
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
OURS = "our own steps; nobody else's were looked at"


def print_claims(
    judgements: list[Judgement],
    asked: Mapping[int, str],
    shown: list[tuple[str, str]],
    source: str,
    console: Console,
    stored: bool,
) -> None:
    """On the terminal.

    asked: {claim: its sentence on the TensorFlow that the question ran}.
    shown: the steps of C13.
    source: where the runs come from.
    stored: whether a store here has them.
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
        if stored:
            said = f"runs {' '.join(judgement.run_ids)}"
            console.print(Padding(said, (0, 0, 0, 5)), style="dim")
    console.print(f"[bold]C13  {OPEN}[/bold]")
    console.print(Padding(f"[bold]{OURS}[/bold]:", (0, 0, 0, 5)))
    for number, (step, what) in enumerate(shown, start=1):
        console.print(Padding(f"{number}. {step}\n   [italic]{what}[/italic]", (0, 0, 0, 5)))
    console.print(source)


def markdown(judgements: list[Judgement], asked: Mapping[int, str]) -> str:
    """The claims as a table. asked: as in `print_claims`."""
    lines = ["| | claim | verdict | what the runs show |", "|---|---|---|---|"]
    for judgement in judgements:
        claim = judgement.claim
        said = f"{judgement.sentence} {asked.get(claim.number, '')}".strip()
        lines.append(f"| C{claim.number} | {claim.text} | **{judgement.verdict}** | {said} |")
    return "\n".join([*lines, f"| C13 | {OPEN} | **{OURS}** | The steps below. |"])


def verdicts_markdown(judgements: list[Judgement]) -> str:
    """The claims and their verdicts alone."""
    lines = ["| | claim | verdict |", "|---|---|---|"]
    lines += [f"| C{j.claim.number} | {j.claim.text} | {j.verdict} |" for j in judgements]
    return "\n".join([*lines, f"| C13 | {OPEN} | {OURS} |"])


def table(conditions: pd.DataFrame, columns: Sequence[str]) -> str:
    """The conditions, each by what it changes of the baseline.

    conditions: of the study `claims`.
    columns: names in present.COLUMNS.
    """
    rows = []
    for _, condition in conditions.iterrows():
        changed = [
            tables.said(name.replace("training.name", "training"), condition[name])
            for name, value in BASELINE.items()
            if condition[name] != value
        ]
        rows.append([", ".join(changed) or "as asked", *present.cells(condition, columns)])
    headers = ["changed", *(present.COLUMNS[name].header for name in columns)]
    lines = ["| " + " | ".join(row) + " |" for row in (headers, *rows)]
    lines.insert(1, "|" + "---|" * len(headers))
    return "\n".join([*lines, "", present.caption(conditions, columns)])


def steps_markdown(shown: list[tuple[str, str]]) -> str:
    """The steps of C13 as a table."""
    lines = ["| | step | where it would have shown the fault |", "|---|---|---|"]
    return "\n".join(
        [*lines, *(f"| {n} | {step} | {what} |" for n, (step, what) in enumerate(shown, start=1))]
    )
