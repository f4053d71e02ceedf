"""One YAML describes a pre-training run: presets, a user's file, ``--set key=value``, with typos named."""

import dataclasses
import difflib
import os
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml

from ...tokenization.errors import InputError

PRESETS = ("tiny", "small", "base")


@dataclass
class ModelSection:
    """The network: a size preset and whatever differs from it."""

    preset: Literal["tiny", "small", "base"] = "tiny"
    overrides: dict[str, Any] = field(default_factory=dict)
    from_checkpoint: str | None = None
    low_rank: int = 0
    refit_axes: bool = False
    attention: Literal["auto", "eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention"] = "auto"
    priors: str | None = None
    use_priors: list[str] | None = None
    prior_warmup_steps: int = 0
    start_from_statistics: bool = True


@dataclass
class DataSection:
    """What is read and how cells are put into batches."""

    max_length: int = 2048
    limit_to_corpus_genes: bool = False
    species_probabilities: dict[str, float] | None = None
    select: dict[str, Any] | None = None
    tokens_per_batch: int = 16384
    cells_per_batch: int | None = None
    pool_cells: int = 1024
    layout: Literal["auto", "padded", "packed"] = "auto"
    workers: int = 0
    held_out: float = 0.05
    share: float = 1.0


@dataclass
class MaskingSection:
    """What is hidden and what is asked; see `CellMasker` (masking.py) and `SplitSettings` (count_split.py)."""

    task: Literal["published", "hidden_rank", "count_split"] = "published"
    rate: float = 0.15
    mask_share: float = 0.8
    random_share: float = 0.1
    keep_id: float = 0.5
    shuffle_equal_values: bool = True
    split_share: list[float] = field(default_factory=lambda: [0.1, 0.8])
    split_genes: list[int] = field(default_factory=lambda: [80, 160])
    panel_chance: float = 0.5
    asked_genes: int = 4000


@dataclass
class OptimisationSection:
    """AdamW with linear warm-up and decay; how long; in which precision."""

    learning_rate: float = 5e-5
    schedule: Literal["linear", "cosine", "constant_with_warmup"] = "linear"
    warmup_steps: int = 10000
    weight_decay: float = 0.01
    adam_beta2: float = 0.999
    max_grad_norm: float = 1.0
    max_steps: int | None = None
    epochs: float | None = 3.0
    max_minutes: float | None = None
    gradient_accumulation_steps: int = 1
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    gradient_checkpointing: bool = False
    compile: bool = False
    device: Literal["auto", "cpu"] = "auto"


@dataclass
class CheckpointSection:
    """When the state is saved, and how many states are kept."""

    every_steps: int = 1000
    keep_last: int = 3


@dataclass
class EvaluationSection:
    """Held-out cells and the yardsticks that the model has to beat."""

    every_steps: int | None = None
    cells_per_species: int = 300
    yardstick_cells_per_species: int = 5000


@dataclass
class LoggingSection:
    """How often figures are logged, and where to."""

    every_steps: int = 50
    to: list[str] = field(default_factory=lambda: ["tensorboard"])
    peak_tflops: float | None = None
    progress_bar: bool = True


@dataclass
class PretrainConfig:
    """A whole pre-training run.

    Parameters
    ----------
    corpus
        Folder or Hub dataset of raw counts.
    output
        Folder for checkpoints and the finished model.
    gene_table
        Gene table (``.parquet``, ``.tsv.gz`` or a checkpoint folder); none: the corpus' own.
    seed
        Seeds weights, order of cells, masks and dropout.
    model, data, masking, optimisation, checkpoints, evaluation, logging
        Sections; every key is described in the preset files.

    Examples
    --------
    >>> config = load_config("tiny", overrides=["corpus=cells", "output=run", "masking.task=hidden_rank"])
    >>> config.masking.task, config.data.max_length
    ('hidden_rank', 512)
    """

    corpus: str | None = None
    output: str | None = None
    gene_table: str | None = None
    seed: int = 0
    model: ModelSection = field(default_factory=ModelSection)
    data: DataSection = field(default_factory=DataSection)
    masking: MaskingSection = field(default_factory=MaskingSection)
    optimisation: OptimisationSection = field(default_factory=OptimisationSection)
    checkpoints: CheckpointSection = field(default_factory=CheckpointSection)
    evaluation: EvaluationSection = field(default_factory=EvaluationSection)
    logging: LoggingSection = field(default_factory=LoggingSection)

    def to_dict(self) -> dict[str, Any]:
        """Nested plain dictionaries, as they are written to YAML."""
        return dataclasses.asdict(self)

    def to_yaml(self) -> str:
        """The resolved configuration as YAML."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False)

    def check(self) -> None:
        """Refuse values that cannot be meant; raises `InputError` that names the key."""
        for key, value in (
            ("data.tokens_per_batch", self.data.tokens_per_batch),
            ("data.max_length", self.data.max_length),
            ("data.pool_cells", self.data.pool_cells),
            ("optimisation.gradient_accumulation_steps", self.optimisation.gradient_accumulation_steps),
            ("checkpoints.every_steps", self.checkpoints.every_steps),
            ("checkpoints.keep_last", self.checkpoints.keep_last),
            ("logging.every_steps", self.logging.every_steps),
        ):
            if value < 1:
                raise InputError(f"config: {key} is {value}, must be at least 1")
        if self.data.tokens_per_batch < self.data.max_length:
            raise InputError(
                f"config: data.tokens_per_batch ({self.data.tokens_per_batch}) is smaller than data.max_length "
                f"({self.data.max_length}): the longest cell would fit no batch"
            )
        for key, pair in (("split_share", self.masking.split_share), ("split_genes", self.masking.split_genes)):
            if len(pair) != 2:
                raise InputError(f"config: masking.{key} is {pair}, must be two numbers: the least and the most")
        if self.model.low_rank and self.model.from_checkpoint is None:
            raise InputError("config: model.low_rank changes a trained model; set model.from_checkpoint")
        if not 0 <= self.data.held_out < 1:
            raise InputError(f"config: data.held_out is {self.data.held_out}, must be a share below 1")
        if not 0 < self.data.share <= 1:
            raise InputError(f"config: data.share is {self.data.share}, must be a share above 0")
        if self.optimisation.max_steps is None and self.optimisation.epochs is None:
            raise InputError("config: say how long to train: optimisation.max_steps or optimisation.epochs")


def load_config(source: str | os.PathLike[str] | None = None, overrides: Iterable[str] = ()) -> PretrainConfig:
    """Read a preset or a YAML file and apply ``key=value`` overrides.

    Parameters
    ----------
    source
        ``tiny``, ``small``, ``base`` or the path of a YAML file. A file may name a preset to start from under the
        top-level key ``preset``. None: the defaults.
    overrides
        ``section.key=value`` with YAML values, for example ``optimisation.learning_rate=1e-3``.

    Raises
    ------
    InputError
        Unknown keys (the nearest known one is suggested) and values of the wrong type.

    Examples
    --------
    >>> load_config("base").optimisation.learning_rate
    5e-05
    """
    config = PretrainConfig()
    if source is not None:
        _apply_file(config, source)
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise InputError(f"--set {override!r}: write it as key=value")
        _set(config, key.strip(), _parse(text, f"--set {key.strip()}"), f"--set {key.strip()}")
    config.check()
    return config


def read_preset(name: str) -> str:
    """Text of a preset file, with its comments.

    Examples
    --------
    >>> "tokens_per_batch" in read_preset("tiny")
    True
    """
    if name not in PRESETS:
        raise InputError(f"preset {name!r}: must be one of {', '.join(PRESETS)}")
    return files("genecompass.training.pretraining").joinpath("presets", f"{name}.yaml").read_text(encoding="utf-8")


def _apply_file(config: PretrainConfig, source: str | os.PathLike[str]) -> None:
    if str(source) in PRESETS:
        content = _parse(read_preset(str(source)), f"preset {source}")
    else:
        path = Path(source)
        if not path.is_file():
            raise InputError(f"{path}: no such config file; give a YAML file or a preset ({', '.join(PRESETS)})")
        content = _parse(path.read_text(encoding="utf-8"), str(path))
    if not isinstance(content, Mapping):
        raise InputError(f"{source}: a config file holds `key: value` lines")
    content = dict(content)
    preset = content.pop("preset", None)
    if preset is not None:
        _apply_file(config, str(preset)) if str(preset) in PRESETS else read_preset(str(preset))
    for key, value in content.items():
        _set(config, str(key), value, str(source))


def _parse(text: str, where: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{where}: not valid YAML ({' '.join(str(error).split())})") from None


def _set(config: Any, key: str, value: Any, where: str, prefix: str = "") -> None:
    """Set a dotted key; a mapping given for a section sets its keys one by one."""
    head, _, rest = key.partition(".")
    names = {item.name: item for item in dataclasses.fields(config)}
    if head not in names:
        raise InputError(f"{where}: unknown key {prefix + key!r}{_nearest(prefix + key)}")
    current = getattr(config, head)
    if dataclasses.is_dataclass(current):
        if rest:
            _set(current, rest, value, where, f"{prefix}{head}.")
        elif isinstance(value, Mapping):
            for name, item in value.items():
                _set(current, str(name), item, where, f"{prefix}{head}.")
        else:
            raise InputError(
                f"{where}: {prefix + head!r} is a section; set one of its keys, such as {_example(current)}"
            )
    elif rest and isinstance(current, dict):
        current[rest] = value
    elif rest:
        raise InputError(f"{where}: {prefix + head!r} has no keys below it{_nearest(prefix + key)}")
    else:
        setattr(config, head, _fit(value, names[head].type, f"{where}: {prefix}{head}"))


def _example(section: Any) -> str:
    return dataclasses.fields(section)[0].name


def _nearest(key: str) -> str:
    known = list(_known_keys(PretrainConfig()))
    # a bare leaf ("learning_rat") is compared with leaves, a dotted key with dotted keys
    leaves = {name.rsplit(".", 1)[-1]: name for name in known}
    by_path = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    by_leaf = difflib.get_close_matches(key.rsplit(".", 1)[-1], list(leaves), n=1, cutoff=0.6)
    found = by_path[0] if by_path and "." in key else leaves[by_leaf[0]] if by_leaf else by_path[0] if by_path else None
    return f"; did you mean {found!r}?" if found else f"; known are {', '.join(known)}"


def _known_keys(section: Any, prefix: str = "") -> Iterable[str]:
    for item in dataclasses.fields(section):
        value = getattr(section, item.name)
        if dataclasses.is_dataclass(value):
            yield from _known_keys(value, f"{prefix}{item.name}.")
        else:
            yield prefix + item.name


def _fit(value: Any, annotation: Any, where: str) -> Any:
    """The value as the annotated type; YAML reads 1e-3 as text, which is meant as a number."""
    options = get_args(annotation) if get_origin(annotation) in (types.UnionType, typing.Union) else (annotation,)
    if value is None and type(None) in options:
        return None
    wanted = next(option for option in options if option is not type(None))
    origin = get_origin(wanted)
    if origin is Literal:
        if value not in get_args(wanted):
            raise InputError(f"{where} is {value!r}, must be one of {', '.join(map(str, get_args(wanted)))}")
        return value
    if origin is list and not isinstance(value, list):
        value = [] if value is None else [value]
    kind = origin or wanted
    if kind is float and isinstance(value, (int, str)) and not isinstance(value, bool):
        try:
            return float(value)
        except ValueError:
            raise InputError(f"{where} is {value!r}, must be a number") from None
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise InputError(f"{where} is {value!r}, must be {_WORDS.get(kind, kind.__name__)}")
    return value


_WORDS = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    dict: "a mapping",
    list: "a list",
}
