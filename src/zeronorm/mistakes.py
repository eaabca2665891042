"""What is wrong with the overrides of a command line, in one sentence: Hydra and OmegaConf say it
in several lines, and otherwise in a sweep than in a single run."""

import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException

from zeronorm import checkout
from zeronorm import config as schema
from zeronorm.config import ConfigError
from zeronorm.ranges import RANGES

MOST = 16  # names that a sentence lists
FEW = 6  # names that it lists beside the one that was meant
# what the extra `slurm` brings to Hydra's choices, and who asks for it
SUBMITITS = {
    "hydra/launcher/submitit_slurm": "slurm",
    "hydra/launcher/submitit_local": "submitit_local",
}


def require_composable(
    overrides: Sequence[str],
    sweep: bool | None = True,
    more: str | None = None,
    folder: str | None = None,
    name: str = "config",
) -> None:
    """Raises ConfigError with one sentence if Hydra would refuse one of the overrides of a command
    line. Of several values of one it tries the first.

    sweep: whether several values make several runs: True, by -m; None, if the config is a study's;
        False, never.
    more, folder, name: what --config-dir, --config-path and --config-name give.
    """
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
        several = [str(one.input_line) for one in parsed if one.is_sweep_override()]
        chosen = [word for override in parsed if (word := _single(override)) is not None]
        config = composed(chosen, more, folder, name)
        _require_a_place(config)
        own = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
        schema.require_present(own)
        OmegaConf.to_container(own, resolve=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(sentence(error)) from error
    if several and sweep is None and config.hydra.mode != RunMode.MULTIRUN:
        raise ConfigError(f"{several[0]} has several values: add -m to make a run of each.")
    if several and sweep is False:
        raise ConfigError(f"{several[0]} has several values: choose one of them here.")


def composed(
    overrides: Sequence[str],
    more: str | None = None,
    folder: str | None = None,
    name: str = "config",
) -> DictConfig:
    """The config of the overrides, with Hydra's own node. more, folder, name: as
    `require_composable` takes them."""
    schema.register()
    beside = [f"hydra.searchpath=['file://{Path(more).absolute()}']"] if more else []
    where = str(Path(folder).absolute() if folder else checkout.conf_dir())
    with initialize_config_dir(where, version_base="1.3"):
        return compose(name, [*beside, *overrides], return_hydra_config=True)


def _single(override: Override) -> str | None:
    """An override with the first of its values; None of one whose names Hydra looks up itself.

    Raises ConfigError if it has none, or a value that no group can have.
    """
    written, key, value = str(override.input_line), str(override.key_or_group), override.value()
    if isinstance(value, Glob):
        return None
    if override.is_sweep_override() and key == "study":
        raise ConfigError(
            f"{written} sweeps over studies, which would make one run of each instead of its sweep:"
            " train one after the other, by zeronorm train study=NAME."
        )
    if override.is_sweep_override():
        values = list(override.sweep_string_iterator())
        if not values:
            raise ConfigError(f"{written} has no value, so there is nothing to run.")
        return f"{override.get_key_element()}={values[0]}"
    if key == "study" and (value is None or value == ""):
        raise ConfigError(f"{written} chooses nothing: leave it out.")
    if schema.is_group(key) and (value is None or value == ""):
        raise ConfigError(f"{written} chooses nothing: {schema.choices_of(key)}.")
    names = value if isinstance(value, list) else [value]
    if isinstance(value, dict) or all(isinstance(one, str | None) for one in names):
        return written
    if schema.is_group(key):
        raise ConfigError(f"{written} is no choice of {key}: {schema.choices_of(key)}.")
    if key == "study" or key.startswith("hydra/"):
        raise ConfigError(f"{written} is no choice of {key}: write {key}=NAME.")
    if "/" in key:
        raise ConfigError(no_option(key))
    return written


def _require_a_place(config: DictConfig) -> None:
    """Raises if the folder of the outputs cannot be told, or a study's grids are none."""
    for key in ("run.dir", "sweep.dir"):
        OmegaConf.select(config.hydra, key)
    sweeper: Any = OmegaConf.to_container(config.hydra.sweeper)
    for key, kind in (("params", dict), ("grids", list)):
        if not isinstance(sweeper.get(key), kind | None):
            wanted = "a mapping" if kind is dict else "a list of mappings"
            raise ConfigError(f"hydra.sweeper.{key}={sweeper[key]} must be {wanted}, or null.")


def sentence(error: Exception) -> str:
    """What Hydra or OmegaConf says in several lines, in one."""
    if isinstance(error, OverrideParseException):
        return _unreadable(error)
    if isinstance(error, MissingConfigException):
        return _no_config(error)
    if isinstance(error, InterpolationResolutionError):
        return f"{error.full_key} cannot be: {str(error).splitlines()[0].rstrip('.')}."
    lines, cause = str(error).splitlines() or [""], error.__cause__
    for pattern, say in SENTENCES.items():
        if found := re.match(pattern, str(error)):
            return say(found, cause)
    said = [lines[0], *str(cause or "").splitlines()[:1]]
    return ": ".join(line.strip().rstrip(".") for line in said) + "."


def unknown(what: str, name: str, options: Iterable[str]) -> str:
    """The sentence on a name that is none of the options."""
    known = [str(option) for option in options]
    listed = ", ".join(known)
    if close := get_close_matches(name, known, 1):
        among = f" (of {listed})" if len(known) <= FEW else ""
        return f"{what} is unknown: did you mean {close[0]}{among}?"
    return f"{what} is unknown: use one of {listed}."


def _no_config(error: MissingConfigException) -> str:
    missing = error.missing_cfg_file or ""
    group, _, name = missing.rpartition("/")
    if missing in SUBMITITS:
        return f"hydra/launcher={SUBMITITS[missing]} needs submitit: pip install 'zeronorm[slurm]'."
    if error.options:
        return unknown(f"{group}={name}", name, error.options)
    return f"There is no file {missing}.yaml where the configuration is looked for."


def _unreadable(error: OverrideParseException) -> str:
    """An override that is not of Hydra's grammar."""
    override = error.override
    key, equals, value = override.partition("=")
    if not override:
        return "An empty word is no override: write KEY=VALUE."
    if not equals:
        key, colon, value = override.partition(":")
        if colon:
            return f"{override} is no override: write {key.lstrip('/')}={value.strip()}."
        name = override if re.fullmatch(r"[\w./@]+", override) else "KEY"
        return f"{override} is no override: write {name}=VALUE."
    if unknown_function := re.search(r"Unknown function '(\w+)'\nAvailable: (\S+)", str(error)):
        called, known = unknown_function.groups()
        return f"{override} cannot be read: {unknown(called, called, known.split(','))}"
    if value.startswith("=") or key.startswith("/"):
        return f"{override} cannot be read: did you mean {key.lstrip('/')}={value.lstrip('=')}?"
    for opening, closing in ("[]", "{}", "()"):
        if value.count(opening) != value.count(closing):
            lone = opening if value.count(opening) > value.count(closing) else closing
            return (
                f"{override} cannot be read: its {lone} has no partner; a text that holds one is"
                " put in quotes, inside the shell's."
            )
    return f"{override} cannot be read: put in quotes what is no letter, digit or one of -_./."


def no_option(key: str) -> str:
    """The sentence on a key that the configuration has not."""
    there = _children(key.startswith("hydra"))
    dotted = re.sub(r"@.*", "", key).replace("/", ".")
    at = dotted
    while at not in there:
        at = at.rpartition(".")[0]
    if others := _choices_with(dotted):
        return f"{key} is no option here: it goes with {' or '.join(others)}."
    if meant := _meant(dotted, at, there):
        name = meant.replace(".", "/") if key.startswith("hydra/") else meant
        return f"{key} is no option: did you mean {name}?"
    if at and not there[at]:
        return f"{key} is no option: {at} is one value, which {at}=VALUE sets."
    adds = f"; +{key}=VALUE adds it" if at in schema.CALLED or at.startswith("hydra.") else ""
    listed = _listed(at, there[at])
    if at and len(there[at]) > MOST:  # of Hydra's own
        listed = "those that zeronorm train --cfg hydra prints"
    return f"{key} is no option: the options there are {listed}{adds}."


def _meant(dotted: str, at: str, there: Mapping[str, list[str]]) -> str | None:
    """The option that comes closest to a key: in its spelling, or by its last name. at: how much of
    the key is there."""
    if dotted == at:
        return at
    wrong, _, rest = dotted.removeprefix(at).removeprefix(".").partition(".")
    if close := get_close_matches(wrong, there[at], 1):
        found = f"{at}.{close[0]}" if at else close[0]
        return f"{found}.{rest}" if f"{found}.{rest}" in there else found
    last = dotted.rpartition(".")[2]
    return next((path for path in sorted(there) if path and path.rpartition(".")[2] == last), None)


def _listed(at: str, names: Iterable[str]) -> str:
    return ", ".join(f"{at}.{name}" if at else name for name in names)


def _choices_with(dotted: str) -> list[str]:
    """The choices of a group in whose files a key of its callable stands, where the baseline's has
    it not: vectors=keyed_vectors has vectors.source.path."""
    group = dotted.partition(".")[0]
    if not dotted.startswith(tuple(f"{node}." for node in schema.CALLED)):
        return []
    files = sorted((checkout.conf_dir() / group).glob("*.yaml"))
    return [
        f"{group}={file.stem}"
        for file in files
        if dotted in _paths(group, yaml.safe_load(file.read_text()))
    ]


def _paths(path: str, node: Any) -> dict[str, list[str]]:
    """{dotted path of a node and of all beneath it: the names in it}."""
    names = {str(name): inside for name, inside in node.items()} if isinstance(node, dict) else {}
    found = {path: list(names)}
    for name, inside in names.items():
        found |= _paths(f"{path}.{name}" if path else name, inside)
    return found


def _children(hydras: bool) -> dict[str, list[str]]:
    """`_paths` of the baseline's configuration, whose root is ''; hydras: of Hydra's own node."""
    plain: Any = OmegaConf.to_container(composed([]), enum_to_str=True)
    hydra = plain.pop("hydra")
    return _paths("", {"hydra": hydra} if hydras else plain)


def _wrong_value(found: re.Match, cause: BaseException | None) -> str:
    """A value that the type of its option does not take."""
    override, full_key = found[1], _full_key(cause)
    key, _, value = override.partition("=")
    key = key.lstrip("+~")
    if override.startswith("~"):
        return f"{override} cannot be: a run needs {key}, so give it another value."
    if full_key and key.startswith(f"{full_key}."):
        return f"{key} is no option: {full_key} is one value, which {full_key}=VALUE sets."
    if full_key in RANGES:
        wrong = RANGES[full_key].fault(value)
        return f"{override} {wrong}."
    if names := _children(key.startswith("hydra")).get(full_key):
        return f"{override} sets a group of options to one value: set {_listed(full_key, names)}."
    options = schema.values(full_key)
    if options and re.fullmatch(r"[\w-]*", value):
        return unknown(override, value, options)
    if options:
        return f"{override} must be one of {', '.join(options)}."
    if kind := schema.kind(full_key):
        return f"{override} must be {kind}."
    return f"{override} cannot be: {str(cause).splitlines()[0].rstrip('.')}."


def _full_key(cause: BaseException | None) -> str:
    """The option that OmegaConf refuses; empty if it does not say."""
    return getattr(cause, "full_key", None) or ""


def _several_values(found: re.Match, _: BaseException | None) -> str:
    return f"{found[1]} has several values: add -m to make a run of each."


def _not_there(found: re.Match, cause: BaseException | None) -> str:
    typed, wrong = found[1], _full_key(cause)
    # of model={fliters:3} it is model.fliters that is not there
    key = wrong if wrong.startswith(f"{typed}.") else typed
    return no_option(key) if key else "A value needs a key before its =: write KEY=VALUE."


# how a message begins, and the sentence that stands for it
SENTENCES = {
    r"Could not override '(.*)'\.": _not_there,
    r"Error merging override (.*)": _wrong_value,
    r"Ambiguous value for argument '(.*)'": _several_values,
    r"Sweep parameters '(.*)' requires --multirun": _several_values,
    r"Could not delete from config\. '(.*)' does not exist": lambda found, _: (
        f"~{found[1]} leaves out what is not there: drop it."
    ),
    r"Could not append to config[^']*'(.*)'\.\nEither remove \+ prefix: '(.*)'": lambda found, _: (
        f"+{found[2]} adds what is there already: write {found[2]}."
    ),
    r"Multiple values for (\S+)\. .*override \S+: (.*)'": lambda found, _: (
        f"+{found[1]}={found[2]} chooses a second {found[1]}: write {found[1]}={found[2]}."
    ),
    r"force-add of config groups is not supported: '\++(.*)'": lambda found, _: (
        f"++{found[1]} chooses what is there already: write {found[1]}."
    ),
    r"Could not delete '(.*)'\. No match": lambda found, _: (
        f"~{found[1]} leaves out what is not chosen: drop it."
    ),
}
