"""How the command is called: the order of its commands, the flags of `train` that are Hydra's, its
page of help, and a wrong call in one line."""

import re
import signal
import textwrap
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import click
import yaml

WIDTH = 80  # columns of the page of help

FOLDER = click.Path(exists=True, file_okay=False)
PICKLE = click.Path(exists=True, dir_okay=False)
# Hydra's, in its words, with what click needs to know of each
HYDRAS: dict[tuple[str, ...], dict[str, Any]] = {
    ("-m", "--multirun"): {"is_flag": True},
    ("-r", "--run"): {"is_flag": True},
    ("-c", "--cfg"): {"type": click.Choice(["job", "hydra", "all"])},
    ("--resolve",): {"is_flag": True},
    ("-p", "--package"): {},
    ("-i", "--info"): {
        "type": click.Choice(
            ["all", "config", "defaults", "defaults-tree", "plugins", "searchpath"]
        ),
        "is_flag": False,
        "flag_value": "all",
    },
    ("-cd", "--config-dir"): {"type": FOLDER},
    ("-cp", "--config-path"): {"type": FOLDER},
    ("-cn", "--config-name"): {},
    ("--hydra-help",): {"is_flag": True},
    ("--version",): {"is_flag": True},
    ("--experimental-rerun",): {"type": PICKLE},
    ("-sc", "--shell-completion"): {"is_flag": True, "hidden": True},
}
ALONE = ("multirun", "run", "cfg", "info")  # of which a call has one at most
TYPED = "zeronorm.typed"  # where a context keeps the words after the command


def hydras(command: Callable) -> Callable:
    """A command that has Hydra's flags, as a decorator."""
    for names, what in reversed(HYDRAS.items()):
        command = click.option(*names, **what)(command)
    return command


def given(options: Mapping[str, Any], overrides: tuple[str, ...]) -> dict[str, Any]:
    """{name: value} of Hydra's flags that a call has. Raises WrongCall where two exclude each
    other, or one cannot be."""
    found = {name: value for name, value in options.items() if value not in (None, False)}
    if "shell_completion" in found:
        shell = "zsh" if any("zsh" in word for word in overrides) else "bash"
        raise WrongCall(
            "Hydra's script does not fit this command: write"
            f' eval "$(_ZERONORM_COMPLETE={shell}_source zeronorm)" into ~/.{shell}rc.'
        )
    alone = [f"--{name}" for name in ALONE if name in found]
    if len(alone) > 1:
        raise WrongCall(f"{' and '.join(alone)} exclude each other: leave one out.")
    for name in ("resolve", "package"):
        if name in found and "cfg" not in found:
            raise WrongCall(f"--{name} goes with --cfg: write --cfg job --{name}.")
    return found


class Commands(click.Group):
    """Commands that are listed in the order of use, in which they are added. A wrong call is
    answered in one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def make_context(self, *arguments, **options) -> click.Context:
        with _one_line():
            return super().make_context(*arguments, **options)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with _one_line():
                return super().invoke(ctx)
        except KeyboardInterrupt:  # of which click would make a 1, as if the call had been wrong
            raise SystemExit(128 + signal.SIGINT) from None


class Train(click.Command):
    """`train`, whose page of help has the factors, and which keeps the words that were typed."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[TYPED] = list(args)
        return super().parse_args(ctx, args)

    def get_help(self, ctx: click.Context) -> str:
        from zeronorm.checkout import conf_dir

        return page(conf_dir())


class WrongCall(click.ClickException):
    """A usage error as one line, with exit status 2."""

    exit_code = 2


@contextmanager
def _one_line() -> Iterator[None]:
    try:
        yield
    except click.UsageError as error:
        if isinstance(error, getattr(click.exceptions, "NoArgsIsHelpError", ())):
            raise  # its message is the page of help
        raise WrongCall(_said(error)) from error


def _said(error: click.UsageError) -> str:
    """A usage error as one sentence."""
    path = error.ctx.command_path if error.ctx else ""
    if not isinstance(error, click.NoSuchOption) or error.ctx is None:
        said = error.format_message().rstrip(".").replace(". Did you", "; did you")
        more = f": {path} --help says more" if path else ""
        return said if said.endswith("?") else f"{said}{more}."
    from zeronorm.config import Config

    name = error.option_name
    options = [option for param in error.ctx.command.params for option in param.opts]
    if close := get_close_matches(name, options, 1, 0.8):
        return f"{path} has no option {name}: did you mean {close[0]}?"
    if name.lstrip("-").partition(".")[0] in Config.__dataclass_fields__:
        key = name.lstrip("-")
        return f"{path} has no option {name}: write {key}=VALUE, without dashes."
    return f"{path} has no option {name}: {path} --help lists what it has."


EXAMPLES = {
    "zeronorm train": "the baseline: finite",
    "zeronorm train numerics=xla training=quick": "one factor changed: NaN",
    "zeronorm train study=quick_ablation": "a study: 48 runs, one table",
    "zeronorm train -m numerics=kernels,xla seed=0,1": "a run of each combination",
    "zeronorm train study=best --only-missing": "go on with an interrupted one",
}

PAGE = """\
Usage: zeronorm train [OPTIONS] [FACTOR=CHOICE | KEY=VALUE]...

Train one run, or a sweep of several: with -m, or of a study.

Examples:
{examples}

Factors (the baseline's choice first):
{factors}
  {study}

Keys:
{keys}
  Each key of a choice too, as in similarity.epsilon=1e-3 or model.filters=100;
  zeronorm train --cfg job prints all of them.

Options:
  -m, --multirun    A run of each combination of the values between commas.
  --only-missing    Of a sweep: take over the finished runs of earlier sweeps,
                    and so go on where one was interrupted.
  --config-dir DIR  Files of your own beside conf/, as DIR/similarity/mine.yaml.
  --cfg job         Print the configuration, and run nothing.
  --hydra-help      The rest of the options, which are Hydra's.
  -h, --help        Show this page.
"""


def page(conf: Path) -> str:
    """The help of `train`, with the choices and the comments of conf/: at most 80 columns."""
    text = (conf / "config.yaml").read_text()
    baseline: dict[str, str] = {}
    for entry in yaml.safe_load(text)["defaults"]:
        baseline |= entry if isinstance(entry, dict) else {}
    column = max(map(len, EXAMPLES)) + 2
    groups = [name for name, choice in baseline.items() if (conf / name).is_dir() and choice]
    factors = {name: ", ".join(choices(conf, name, baseline[name])) for name in groups}
    keys = re.findall(r"^(\w+): (\S+) +# (.+)$", text, re.MULTILINE)
    return PAGE.format(
        examples="\n".join(f"  {said:{column}}{why}" for said, why in EXAMPLES.items()),
        factors=_table(factors),
        study=_table({"study": ", ".join(choices(conf, "study", ""))}).strip(),
        keys=_table({f"{key}={value}": said for key, value, said in keys if "$" not in value}),
    )


def choices(conf: Path, group: str, first: str) -> list[str]:
    """The names of a group's files, sorted, but `first` first."""
    names = sorted(file.stem for file in (conf / group).glob("*.yaml"))
    return sorted(names, key=lambda name: name != first)


def _table(rows: Mapping[str, str]) -> str:
    """Name and text in two columns."""
    wide = max(16, *(len(name) + 2 for name in rows))
    return "\n".join(
        textwrap.fill(
            said,
            WIDTH,
            initial_indent=f"  {name:{wide}}",
            subsequent_indent=" " * (wide + 2),
            break_on_hyphens=False,
        )
        for name, said in rows.items()
    )
