"""What a run found: as tags, in words, and as files."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from omegaconf import DictConfig

from zeronorm import numerics, prediction, recorder, singularity, vectors


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
    autopsy: the beginning of its text.
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
    story: str = ""
    autopsy: str = ""


def tags_of(result: Result, used: numerics.Numerics, xla_steps: int) -> dict[str, str]:
    recording, predicted, touch = result.recording, result.predicted, result.touch
    chance, zero_row = result.chance, result.zero_row
    assert recording and predicted and touch and chance and zero_row  # it is complete
    first = recording.first_nan()
    encoder = recording.first_nan("convolution/kernel", "dense/kernel")
    loss = result.curves["train/loss"]
    finite = loss[np.isfinite(loss)]
    tags = {
        "outcome": result.outcome,
        "numerics": used.name,  # what numerics=auto came out as
        "xla.steps": f"{xla_steps} of {recording.steps}",
        "loss.last_finite": f"{finite[-1]:.6g}" if len(finite) else None,
        "loss.nonfinite_steps": int((~np.isfinite(loss)).sum()),
        "titles": result.audit["titles"]["rows"],
        "deadly_titles": ", ".join(_deadly(result, vectors.CLASSES)),
        **{f"matrix.{name}": digest for name, digest in result.audit["sha256"].items()},
        "zero_texts": result.audit["texts_of_zero_rows_only"],
        "nan.first_step": first and first.step,
        "nan.first_tensor": first and first.tensor,
        "nan.first_rows": first and ", ".join(first.names[:10]),
        "nan.encoder_step": encoder and encoder.step,
        "nan.predicted_step": predicted.first,
        "nan.predicted_encoder_step": predicted.encoder,
        "nan.prediction_uncertain": predicted.uncertain,
        "touch.first": touch.first,
        "touch.again": touch.again,
        "touch.probability": f"{chance.batch:.6g}",
        "touch.expected": _number(chance.first),
        "zero_row.derivative": _number(zero_row.derivative),
        "zero_row.gradient": _number(zero_row.gradient),
        "zero_row.gradient_tiny": _number(zero_row.gradient_tiny),
        **{f"small_row.score_{size:g}": _number(score) for size, score in zero_row.scores.items()},
    }
    return {key: str(value) for key, value in tags.items() if value not in (None, "")}


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


def story(config: DictConfig, result: Result) -> str:
    """What happened, in three sentences."""
    recording, predicted = result.recording, result.predicted
    assert recording and predicted  # it is complete
    rows = result.audit["titles"]["rows"]
    first = recording.first_nan()
    encoder = recording.first_nan("convolution/kernel", "dense/kernel")

    def expected(step: int | None) -> str:
        return "none was predicted" if step is None else f"step {step} was predicted"

    if first is None:
        event = (
            f"All weights stayed finite over {recording.steps} steps ({expected(predicted.first)})"
        )
    else:
        who = (
            f" ({', '.join(first.names[:3])}{', ...' if len(first.names) > 3 else ''})"
            if first.names
            else ""
        )
        event = (
            f"{first.tensor}{who} became non-finite in step {first.step}"
            f" ({expected(predicted.first)})"
        )
        if encoder:
            event += (
                f", the encoder's kernels in step {encoder.step} ({expected(predicted.encoder)})"
            )
    ending = []
    if "eval/hits_at_10" in result.metrics:
        quality = (
            f"hits@10 on {config.training.evaluate_on.value} is"
            f" {result.metrics['eval/hits_at_10']:.3f}"
        )
        ending.append(f"{quality}, chance {min(1, 10 / rows):.3f}")
    if config.numerics.name == "xla":
        ending.append(f"XLA computed {result.tags['xla.steps']} steps")
    sentences = [_rows(result), event, "; ".join(ending)]
    return " ".join(f"{sentence}." for sentence in sentences if sentence)


def write(path: Path, content) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def write_recording(result: Result) -> None:
    recording, touch, predicted = result.recording, result.touch, result.predicted
    assert recording and touch and predicted  # the training has begun
    events = [asdict(event) for event in recording.events]
    found = {"touch": asdict(touch), "predicted": asdict(predicted), "events": events}
    write(result.folder / "nan_events.json", found)
    deaths = [
        {"tensor": tensor, "row": row, "name": recording.names[tensor][row], "step": step}
        for tensor, rows in recording.deaths.items()
        for row, step in rows.items()
    ]
    if deaths:
        pd.DataFrame(deaths).to_csv(result.folder / "row_deaths.csv", index=False)
    long = [
        pd.DataFrame({"step": np.arange(len(curve)), "name": name, "value": curve})
        for name, curve in result.curves.items()
    ]
    if long:
        pd.concat(long).dropna().to_csv(result.folder / "curves.csv.gz", index=False)
