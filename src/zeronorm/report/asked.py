"""The claims judged on the Keras and TensorFlow that the question ran: what
experiments/releases/question.py has recorded there."""

import json
from collections.abc import Callable
from dataclasses import dataclass

from zeronorm.report import committed
from zeronorm.report.committed import existing

LAYERS = ("words", "titles", "convolution", "dense")


@dataclass(frozen=True)
class Fit:
    """A training of the question's model.

    loss: of each batch, a number or the word nan.
    val_loss: of each epoch.
    norms: {layer: at the start and after each batch}.
    """

    loss: list
    val_loss: list
    norms: dict[str, list]

    def lost(self, layer: str) -> int | None:
        """The batch, counted from 0, after which the layer's weights were not finite."""
        words = [isinstance(norm, str) for norm in self.norms[layer]]
        return words.index(True) - 1 if any(words) else None

    @property
    def dies(self) -> bool:
        return any(self.lost(layer) is not None for layer in LAYERS)

    @property
    def trains(self) -> bool:
        """Finite, and its loss fell to less than three quarters of what it began with."""
        return not self.dies and self.loss[-1] < 0.75 * self.loss[0]

    @property
    def loss_is_zero_from_death_on(self) -> bool:
        lost = self.lost("convolution")
        after = [] if lost is None else self.loss[lost + 1 :]
        return bool(after) and not any(after) and not any(isinstance(x, str) for x in self.loss)

    def growth(self, layer: str) -> float:
        """The last finite norm over the first."""
        norms = self.norms[layer]
        return [norm for norm in norms if not isinstance(norm, str)][-1] / norms[0]

    @property
    def shrinks(self) -> bool:
        return all(self.growth(layer) < 1 for layer in ("convolution", "dense"))


def fits(name: str) -> tuple[str, dict[str, Fit]]:
    """(what it ran on, {condition: its fit}) of experiments/<name>/question.json."""
    found = json.loads(existing(name, "question.json").read_text())
    where = f"TensorFlow {found['tensorflow']} with Keras {found['keras']}"
    return where, {key: Fit(**values) for key, values in found["conditions"].items()}


def _steps(fit: Fit) -> str:
    """'NaN in step 0: titles; in step 1: words, ...', or that there was none."""
    by_step: dict[int, list[str]] = {}
    for layer in ("titles", "words", "convolution", "dense"):
        step = fit.lost(layer)
        if step is not None:
            by_step.setdefault(step, []).append(layer)
    said = "; ".join(f"in step {step}: {', '.join(of)}" for step, of in sorted(by_step.items()))
    return f"NaN {said}" if said else "every weight finite"


def _number(value: float | str) -> str:
    return "NaN" if isinstance(value, str) else f"{value:.4g}"


def _loss(fit: Fit) -> str:
    return f"loss {', '.join(map(_number, fit.loss[:4]))}, ..., {_number(fit.loss[-1])}"


def _shrinking(fit: Fit) -> str:
    changes = ", ".join(f"{layer} {fit.growth(layer):.4f}" for layer in LAYERS)
    return f"dead after {fit.lost('convolution')} step; the norms then, over the start's: {changes}"


@dataclass(frozen=True)
class Asked:
    """A claim there.

    condition: of question.py.
    holds: whether the fit agrees with the claim.
    sentence: what the fit shows.
    unlike: the condition of a contrast, which may not agree.
    otherwise: the verdict where it does not agree.
    """

    condition: str
    holds: Callable[[Fit], bool]
    sentence: Callable[[Fit], str]
    unlike: str | None = None
    otherwise: str = "refuted"

    def verdict(self, found: dict[str, Fit]) -> str:
        """found: the fit of every condition."""
        other = self.unlike is not None and self.holds(found[self.unlike])
        return "confirmed" if self.holds(found[self.condition]) and not other else self.otherwise

    def shown(self, found: dict[str, Fit]) -> str:
        """The fits that decide, in words."""
        names = [self.condition, *([self.unlike] if self.unlike else [])]
        return "; ".join(f"{name}; {self.sentence(found[name])}" for name in names)


CLAIMS = {
    1: Asked("20 examples", lambda fit: fit.lost("convolution") is not None, _steps),
    2: Asked("500 examples", lambda fit: fit.lost("words") is not None, _steps, "20 examples"),
    3: Asked("500 examples", lambda fit: fit.shrinks, _shrinking, otherwise="not reproduced"),
    4: Asked("500 examples", lambda fit: fit.loss_is_zero_from_death_on, _loss),
    5: Asked("SGD", lambda fit: fit.dies, _steps),
    6: Asked("normalised", lambda fit: fit.dies, _steps),
    7: Asked("float64 vectors", lambda fit: fit.dies, _steps),
    8: Asked("frozen", lambda fit: fit.trains, lambda fit: f"{_steps(fit)}, {_loss(fit)}"),
    9: Asked("uniform", lambda fit: fit.trains, lambda fit: f"{_steps(fit)}, {_loss(fit)}"),
    10: Asked("zero rows repaired", lambda fit: not fit.dies, _steps),
    12: Asked("epsilon added", lambda fit: not fit.dies, _steps),
}


def sentences(name: str) -> dict[int, str]:
    """{claim: its verdict there, and what shows it}; nothing outside a checkout."""
    if not (committed.experiments_dir() / name).is_dir():
        return {}
    where, found = fits(name)
    return {
        number: f"On {where}: {claim.verdict(found)} ({claim.shown(found)})."
        for number, claim in CLAIMS.items()
    }


def table(name: str) -> str:
    """Every condition of question.py."""
    _, found = fits(name)
    lines = [
        "| condition | steps | NaN in step: titles, words, Conv1D, Dense | loss of the first four"
        " batches, and of the last | validation loss: first and last epoch |",
        "|---" * 5 + "|",
    ]
    for condition, fit in found.items():
        lost = [fit.lost(layer) for layer in ("titles", "words", "convolution", "dense")]
        said = ", ".join("-" if step is None else str(step) for step in lost)
        validated = ", ".join(_number(fit.val_loss[epoch]) for epoch in (0, -1))
        lines.append(
            f"| {condition} | {len(fit.loss)} | {f'**{said}**' if fit.dies else 'finite'} |"
            f" {_loss(fit).removeprefix('loss ')} | {validated} |"
        )
    return "\n".join(lines)
