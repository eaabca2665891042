"""What a run found: as tags, in words, and as files."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from omegaconf import DictConfig

from zeronorm import numerics, prediction, recorder, singularity, vectors
from zeronorm.clock import Clock


@dataclass
class Result:
    """What a run found; complete when `outcome` is set. Written piece by piece, so that an
    interrupted run keeps what it has.

    outcome: finite or nan.
    audit: what the matrices hold.
    touch, predicted, chance: see `prediction`.
    zero_row: what the placement does at a zero row.
    metrics: {path: value} at the end.
    curves: {path: float64 [steps]}.
    epochs: {last step of an epoch: metrics} where asked for.
    norms: {weight: (start, end)}.
    tags: to find the run by.
    facts: what is looked up, not searched for: a tag and a file hold them all.
    verdict: the first sentence of `story`, what happened in its own words.
    autopsy: what a terminal shows of it.
    clock: where its time goes: preparation, prediction, compilation, steps, evaluation, files,
        autopsy, logging.
    """

    folder: Path
    steps: int = 0
    outcome: str | None = None
    audit: dict = field(default_factory=dict)
    touch: prediction.Touch | None = None
    predicted: prediction.Prediction | None = None
    chance: prediction.Chance | None = None
    zero_row: singularity.Singularity | None = None
    recording: recorder.Recording | None = None
    curves: dict[str, np.ndarray] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    epochs: dict[int, dict[str, float]] = field(default_factory=dict)
    norms: dict[str, tuple[float, float]] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)
    verdict: str = ""
    story: str = ""
    autopsy: str = ""
    clock: Clock = field(default_factory=Clock)


def kernels(trained: Sequence[str]) -> list[str]:
    """Of the names of the trained weights those of the encoder's kernels."""
    return [name for name in trained if name.endswith("/kernel")]


def tags_of(result: Result, used: numerics.Numerics, xla_steps: int) -> dict[str, str]:
    """What a run is searched for by."""
    recording, predicted = result.recording, result.predicted
    assert recording and predicted  # it is complete
    first = recording.first_nan()
    encoder = recording.first_nan(*kernels(recording.trained))
    tags = {
        "outcome": result.outcome,
        "numerics": used.name,  # what numerics=auto came out as
        "xla.steps": f"{xla_steps} of {recording.steps}",
        "nan.first_step": first and first.step,
        "nan.first_tensor": first and first.tensor,
        "nan.first_rows": first and ", ".join(first.names[:10]),
        "nan.encoder_step": encoder and encoder.step,
        "nan.predicted_step": predicted.first,
        "nan.predicted_encoder_step": predicted.encoder,
        "nan.prediction_uncertain": predicted.uncertain,
    }
    return _text(tags)


def facts_of(result: Result) -> dict[str, str]:
    """What of a run is looked up: what the tables say besides, and digests."""
    touch, chance, zero_row = result.touch, result.chance, result.zero_row
    assert touch and chance and zero_row  # it is complete
    loss = result.curves["train/loss"]
    finite = loss[np.isfinite(loss)]
    facts = {
        "loss.last_finite": f"{finite[-1]:.6g}" if len(finite) else None,
        "loss.nonfinite_steps": int((~np.isfinite(loss)).sum()),
        "titles": result.audit["titles"]["rows"],
        "deadly_titles": ", ".join(_deadly(result, vectors.CLASSES)),
        **{f"matrix.{name}": digest for name, digest in result.audit["sha256"].items()},
        "zero_texts": result.audit["texts_of_zero_rows_only"],
        "touch.first": touch.first,
        "touch.again": touch.again,
        "touch.probability": f"{chance.batch:.6g}",
        "touch.expected": _number(chance.first),
        "zero_row.derivative": _number(zero_row.derivative),
        "zero_row.gradient": _number(zero_row.gradient),
        "zero_row.gradient_tiny": _number(zero_row.gradient_tiny),
        **{f"small_row.score_{size:g}": _number(score) for size, score in zero_row.scores.items()},
    }
    for name, (start, end) in result.norms.items():
        facts[f"norm.{name}"] = f"{start:.6g} -> {end:.6g}"
        curve = result.curves[f"norm/{name}"]
        after = curve[np.isfinite(curve)]  # a step, unlike the start
        facts[f"norm_last.{name}"] = f"{after[-1]:.6g}" if len(after) else "nan"
    return _text(facts)


def nan_steps(result: Result) -> dict[str, float]:
    """The steps of the tags nan.*, as numbers that can be sorted and drawn, where there are any."""
    names = {
        "nan/step": "nan.first_step",
        "nan/step_predicted": "nan.predicted_step",
        "nan/encoder_step": "nan.encoder_step",
        "nan/encoder_step_predicted": "nan.predicted_encoder_step",
    }
    return {name: float(result.tags[tag]) for name, tag in names.items() if tag in result.tags}


def _text(found: dict) -> dict[str, str]:
    return {key: str(value) for key, value in found.items() if value not in (None, "")}


def _number(value: float | None) -> str | None:
    """Six digits; inf and nan by name."""
    return None if value is None else f"{value:.6g}"


def _deadly(result: Result, classes: Sequence[str]) -> list[str]:
    """['5 small', '1 large']: how many deadly title rows there are of each class."""
    return [
        f"{len(names)} {kind}"
        for kind, names in result.audit["deadly_titles"].items()
        if names and kind in classes
    ]


def _rows(result: Result) -> str:
    """'57 of 106 title rows start at zero': and the deadly ones that do not, by their class."""
    titles, others = result.audit["titles"], _deadly(result, vectors.CLASSES[1:])
    more = f" and {', '.join(others)} ones are as deadly" if others else ""
    texts = result.audit["texts_of_zero_rows_only"]
    known = f", and {texts} texts have no word with a vector" if texts else ""
    return f"{titles['zero_rows']} of {titles['rows']} title rows start at zero{more}{known}"


def forecast(result: Result) -> str:
    """What the audit found and what is predicted, in two sentences, or three, before the first
    step."""
    predicted = result.predicted
    assert predicted  # the audit comes before
    steps = {"the title rows": predicted.titles, "the encoder's kernels": predicted.encoder}
    deaths = [f"{who} become NaN in step {step}" for who, step in steps.items() if step is not None]
    doubt = f" Not certain: {predicted.uncertain}." if predicted.uncertain else ""
    return f"{_rows(result)}. Predicted: {', '.join(deaths) or 'no NaN'}.{doubt}"


def verdict(result: Result) -> str:
    """What became of the weights, and whether it was predicted, in a sentence."""
    recording, predicted = result.recording, result.predicted
    assert recording and predicted  # it is complete
    first = recording.first_nan()
    encoder = recording.first_nan(*kernels(recording.trained))

    def expected(step: int | None) -> str:
        return "none was predicted" if step is None else f"step {step} was predicted"

    if first is None:
        return (
            f"All weights stayed finite over {recording.steps} steps ({expected(predicted.first)})."
        )
    who = (
        f" ({', '.join(first.names[:3])}{', ...' if len(first.names) > 3 else ''})"
        if first.names
        else ""
    )
    event = (
        f"{first.tensor}{who} became non-finite in step {first.step} ({expected(predicted.first)})"
    )
    if encoder:
        event += f", the encoder's kernels in step {encoder.step} ({expected(predicted.encoder)})"
    return f"{event}."


def story(config: DictConfig, result: Result) -> str:
    """The verdict, and what it came from, in three sentences; a fourth where the loss deceives."""
    assert result.recording
    rows = result.audit["titles"]["rows"]
    ending = []
    if "eval/hits_at_10" in result.metrics:
        quality = (
            f"hits@10 on {config.training.evaluate_on.value} is"
            f" {result.metrics['eval/hits_at_10']:.3f}"
        )
        ending.append(f"{quality}, chance {min(1, 10 / rows):.3f}")
    if config.numerics.name == "xla":
        ending.append(f"XLA computed {result.tags['xla.steps']} steps")
    sentences = [f"{_rows(result)}.", result.verdict, f"{'; '.join(ending)}." if ending else ""]
    last = result.curves["train/loss"][-1:]
    if result.outcome == "nan" and np.array_equal(last, [0.0]):
        sentences.append("The loss reads 0 since then, because maximum(0, NaN) is 0 here.")
    return " ".join(sentence for sentence in sentences if sentence)


def write(path: Path, content) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _line(content) -> str:
    return json.dumps(content, ensure_ascii=False)


def write_recording(result: Result) -> None:
    recording, touch, predicted = result.recording, result.touch, result.predicted
    assert recording and touch and predicted  # the training has begun
    events = ",\n".join(_line(asdict(event)) for event in recording.events)
    # what one looks for first; a line each, because their lists of rows are long
    parts = {"events": f"[\n{events}\n]", "predicted": _line(asdict(predicted))}
    parts["touch"] = _line(asdict(touch))
    text = "{\n" + ",\n".join(f'"{name}": {part}' for name, part in parts.items()) + "\n}\n"
    (result.folder / "nan_events.json").write_text(text, encoding="utf-8")
    deaths = [
        {"tensor": tensor, "row": row, "name": recording.names[tensor][row], "step": step}
        for tensor, rows in recording.deaths.items()
        for row, step in rows.items()
    ]
    if deaths:
        in_order = pd.DataFrame(deaths).sort_values(["step", "tensor"], kind="stable")
        in_order.to_csv(result.folder / "row_deaths.csv", index=False)
    long = [
        pd.DataFrame({"step": np.arange(len(curve)), "name": name, "value": curve})
        for name, curve in result.curves.items()
    ]
    if long:
        pd.concat(long).dropna().to_csv(result.folder / "curves.csv.gz", index=False)
