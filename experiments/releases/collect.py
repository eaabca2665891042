"""The question's model on every release of TensorFlow: probe.py under each interpreter of a folder,
and this project's `numerics=tf1` beside TensorFlow 1.3.0; and affected.py under each library of
today. Writes releases.json, operations.json, question.json and libraries.json beside this file, the
figure, and the README's tables.

python experiments/releases/collect.py INTERPRETERS [--small --to FOLDER]

INTERPRETERS holds a folder for each release of wheels.csv, RELEASE/python, in which `import
tensorflow` gives it; keras-2.0.8/python, which has Keras 2.0.8 on TensorFlow 1.3.0; and for each of
BACKENDS one with that library, jax/bin/python. What an interpreter has answered is kept in
INTERPRETERS/answers, so that an interrupted collection goes on.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from rich.progress import track

from zeronorm import config as schema
from zeronorm import export, preparation, provenance, training
from zeronorm.report import blocks, figures

HERE = Path(__file__).parent
RUN = ["examples=500", "optimizer=adam_2017", "seed=0"]  # of the table of releases
STEPS = 6
ENCODER = ("convolution/kernel", "convolution/bias", "dense/kernel", "dense/bias")
SMALL = ["examples=20", "model.filters=16", "optimizer=adam_2017"]

BACKENDS = ("tensorflow", "jax", "torch")  # of Keras, and whose other functions are tried

CONDITIONS = {
    "as asked, 20 examples": (["examples=20"], 20),
    "as asked, 500 examples": ([], 50),
    "epsilon added, the published answer": (["similarity=add_to_product"], 50),
    "no epsilon": (["similarity=unguarded"], 50),
    "epsilon added to either norm": (["similarity=add_to_norms"], 50),
    "either norm bounded": (["similarity=clamp_norms"], 50),
    "reciprocal root bounded": (["similarity=keras_normalize"], 50),
    "where, once": (["similarity=single_where"], 50),
    "where, twice": (["similarity=double_where"], 50),
    "epsilon added inside the root": (["similarity=add_to_squares"], 50),
    "bounded inside the root": (["similarity=clamp_squares"], 50),
    "SGD": (["optimizer=sgd"], 50),
    "rows divided by their norms": (["vectors.normalise=true"], 50),
    "float64 vectors": (["vectors.dtype=float64"], 50),
    "one zero title, batches of 1": (["vectors.zero_share=0.01", "training.batch=1"], 200),
    "every word row zero, titles repaired": (["init=repaired", "vectors.zero_word_share=1"], 20),
    "titles repaired": (["init=repaired"], 50),
    "uniform vectors": (["init=uniform"], 50),
    "frozen": (["trainable=false"], 50),
}
"""What is changed of RUN, and how many steps are compared."""


def probed(python: Path | str, start: Path, *options: str) -> dict:
    """What probe.py answers under an interpreter."""
    command = [str(python), str(HERE / "probe.py"), str(start), *options]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{ran.stderr[-2000:]}")
    return json.loads(ran.stdout)


def kept(file: Path, make) -> dict:
    """What `make` returns, made once."""
    if not file.exists():
        found = make()
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(found))
    return json.loads(file.read_text())


def first(curves: dict, names) -> int | None:
    """The first step after which one of the weights is not finite."""
    lost = np.sum([curves["nonfinite"][name] for name in names], axis=0)
    return int(np.argmax(lost > 0)) if np.any(lost) else None


def row(answer: dict, compiler: str, name: str) -> dict:
    """Of a release: what became of the model, for the table."""
    trained = answer["compilers"][compiler]["training"][name]
    found = {"release": answer["tensorflow"], "python": answer["python"]}
    found |= {"compiler": compiler, "similarity": name, "outcome": "not run", "why": ""}
    found |= {"titles": None, "encoder": None, "loss": []}
    if "failed" in trained:
        return found | {"why": trained["failed"]}
    titles, encoder = first(trained, ["titles"]), first(trained, ENCODER)
    died = titles is not None or encoder is not None
    assert compiler == "kernels" or trained["xla_steps"] == len(trained["loss"])
    return found | {
        "outcome": "NaN" if died else "finite",
        "titles": titles,
        "encoder": encoder,
        "loss": trained["loss"][:5],
    }


def emulated(prepared: preparation.Prepared, steps: int) -> dict:
    """The same measurements of this project's own training."""
    recording = prepared.start()
    training.train(prepared.program, islice(prepared.order(), steps), recording)
    return {
        "loss": recording.curves["train/loss"].tolist(),
        "norms": {name: recording.curves[f"norm/{name}"].tolist() for name in recording.trained},
        "nonfinite": {
            name: recording.curves[f"nonfinite/{name}"].tolist() for name in recording.trained
        },
    }


def compared(name: str, overrides: list[str], steps: int, python: Path | str, numerics: str):
    """A row of the second table: a condition on that TensorFlow, and by this project."""
    config = schema.composed(*overrides, f"numerics={numerics}")
    schema.validate(config)
    prepared = preparation.prepare(config)
    with TemporaryDirectory() as folder:
        steps = export.save(prepared, steps, Path(folder) / "start.npz")
        answer = probed(
            python, Path(folder) / "start.npz", "--steps", str(steps), "--compilers", "kernels"
        )
    real = answer["compilers"]["kernels"]["training"][config.similarity.name]
    ours = emulated(prepared, steps)
    trained = [weight for weight in ENCODER if weight in ours["norms"]]
    found = {"condition": name, "overrides": " ".join(overrides), "steps": steps}
    found |= {"release": answer["tensorflow"]}
    for key, curves in (("", real), ("_emulated", ours)):
        titles = first(curves, ["titles"]) if "titles" in ours["nonfinite"] else None
        found |= {f"titles{key}": titles, f"encoder{key}": first(curves, trained)}
    found["loss"] = real["loss"][:5]
    found["loss_end"] = real["loss"][-1]
    found["loss_difference"] = difference(real["loss"], ours["loss"])
    norms = [difference(real["norms"][weight], norm) for weight, norm in ours["norms"].items()]
    return found | {"norm_difference": max(norms)}


def difference(real: list, ours: list) -> float:
    """The largest relative difference where both are finite and neither is 0."""
    a, b = (np.array(values, np.float64) for values in (real, ours))
    where = np.isfinite(a) & np.isfinite(b) & (a != 0) & (b != 0)
    return float(np.max(np.abs(a - b)[where] / np.abs(a)[where], initial=0.0))


def wheels() -> list[dict]:
    with open(HERE / "wheels.csv") as file:
        return list(csv.DictReader(file))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("interpreters", type=Path, nargs="?")
    parser.add_argument("--small", action="store_true", help="a small model, only here")
    parser.add_argument("--to", type=Path, default=HERE, metavar="FOLDER")
    asked = parser.parse_args()
    if asked.small and asked.to == HERE:
        parser.error("--small is written elsewhere: give --to FOLDER")
    if not asked.small and not asked.interpreters:
        parser.error("give the folder of interpreters")
    schema.register()
    places = {} if asked.small else interpreters(asked.interpreters)
    places |= {version("tensorflow"): Path(sys.executable)}
    answers = asked.to / "answers" if asked.small else asked.interpreters / "answers"
    run, options = (SMALL, ["--steps", "2"]) if asked.small else (RUN, ["--steps", str(STEPS)])
    options += ["--similarity", "clamp_product" if asked.small else "all"]
    start = answers / "start.npz"
    answers.mkdir(exist_ok=True)
    export.save(preparation.prepare(schema.composed(*run)), STEPS, start)
    told = [
        kept(answers / f"{release}.json", lambda python=python: probed(python, start, *options))
        for release, python in track(places.items(), "TensorFlow releases")
    ]
    rows = [
        row(answer, compiler, name)
        for answer in told
        for compiler, of in answer["compilers"].items()
        for name in of["training"]
    ]
    operations = {
        answer["tensorflow"]: {
            compiler: {key: value for key, value in of.items() if key != "training"}
            for compiler, of in answer["compilers"].items()
        }
        for answer in told
    }
    comparisons = list(CONDITIONS.items())[:1] if asked.small else CONDITIONS.items()
    emulation = []
    for name, (changed, steps) in track(comparisons, "conditions"):
        overrides = list({word.split("=")[0]: word for word in [*run, *changed]}.values())
        python, numerics = (sys.executable, "kernels") if asked.small else (places["1.3.0"], "tf1")
        emulation.append(
            kept(
                answers / f"{name}.json",
                lambda of=(name, overrides, steps, python, numerics): compared(*of),
            )
        )
    measured = provenance.tags() | {"rows": rows, "emulation": emulation, "steps": STEPS}
    write(asked.to / "releases.json", measured)
    write(asked.to / "operations.json", operations)
    if not asked.small:
        keras = asked.interpreters / "keras-2.0.8" / "python"
        question = kept(answers / "question.json", lambda: printed(keras, "question.py", start))
        write(HERE / "question.json", question)
        write(HERE / "libraries.json", provenance.tags() | affected(asked.interpreters))
        figures.release_bands(rows, wheels(), HERE / "releases.png")
        blocks.refresh_readmes()


def interpreters(folder: Path) -> dict[str, Path]:
    """{release: its python}, in the order of wheels.csv."""
    found = {of["release"]: folder / of["release"] / "python" for of in wheels()}
    return {release: python for release, python in found.items() if python.exists()}


def printed(python: Path, script: str, *arguments, **environment: str) -> dict:
    """What a script beside this one prints under an interpreter."""
    command = [str(python), str(HERE / script), *map(str, arguments)]
    own = os.environ | environment
    ran = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=own)
    return json.loads(ran.stdout)


def affected(folder: Path) -> dict:
    """What affected.py prints under each of BACKENDS, in one."""
    rows = []
    for backend in BACKENDS:
        own = backend == "tensorflow"
        python = Path(sys.executable) if own else folder / backend / "bin" / "python"
        found = kept(
            folder / "answers" / f"{backend}.json",
            lambda python=python, backend=backend: printed(
                python, "affected.py", KERAS_BACKEND=backend
            ),
        )
        rows += found["rows"]
    return {"rows": rows}


def write(path: Path, value: dict) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n")


if __name__ == "__main__":
    main()
