"""A fixed tiny input and the outputs that a checkpoint gave for it when it was saved."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .errors import InputError

# Share of an output's spread by which it may differ: other processors and libraries sum float32 in another order.
TOLERANCE = 1e-4
_GENES = 24


def compute_known_answer(
    folder: str | os.PathLike[str], kind: str = "checkpoint", *, base: str | os.PathLike[str] | None = None
) -> dict[str, Any]:
    """Run the model of a folder on a fixed tiny input, in float32 on the CPU, without any code from the folder.

    Parameters
    ----------
    folder
        Local checkpoint or PEFT adapter.
    kind
        ``checkpoint`` or ``adapter``.
    base
        For an adapter: the base checkpoint to use instead of the one that its config names.

    Returns
    -------
    dict
        ``model`` (class), ``input`` (tokens, values, species), ``outputs`` (name -> shape, mean, std and the first
        eight numbers of each output tensor) and, where the folder has a processor, ``processor``: gene ids and counts
        in, tokens and values out. If a model cannot be run here, ``skipped`` says why.
    """
    import torch

    folder = Path(folder)
    try:
        with _quiet():
            model = _load_adapter(folder, base) if kind == "adapter" else _load_checkpoint(folder)
    except _NotHereError as reason:
        return {"skipped": str(reason)}
    batch, described = _fixed_input(model.config)
    with torch.inference_mode():
        outputs = model.eval().float()(**batch)
    answer: dict[str, Any] = {
        "model": type(model.get_base_model() if kind == "adapter" else model).__name__,
        "input": described,
        "outputs": {name: _summary(value) for name, value in outputs.items() if isinstance(value, torch.Tensor)},
    }
    has_processor = folder if kind == "checkpoint" else _base_of(folder, base)
    processed = _processor_answer(has_processor)
    return answer | ({"processor": processed} if processed else {})


def compare_known_answer(recorded: dict[str, Any], computed: dict[str, Any]) -> list[str]:
    """Differences between a recorded and a recomputed known answer, one line each; empty if they agree.

    Numbers agree within 0.01 % of the output's spread, which covers the rounding of other processors and libraries.
    """
    problems = []
    if recorded.get("model") != computed.get("model"):
        problems.append(f"config.json: loads as {computed.get('model')}, was saved as {recorded.get('model')}")
    for name, expected in recorded.get("outputs", {}).items():
        found = computed.get("outputs", {}).get(name)
        if found is None:
            problems.append(f"{name}: the model no longer gives this output")
        elif found["shape"] != expected["shape"]:
            problems.append(f"{name}: shape {found['shape']}, recorded {expected['shape']}")
        else:
            problems += _number_problems(name, expected, found)
    expected, found = recorded.get("processor"), computed.get("processor")
    if expected and not found:
        problems.append("processor_config.json: the processor no longer loads")
    elif expected and found:
        problems += [
            f"processor: {key} for the fixed cell differ from those recorded (genes.tsv.gz, tokenizer.json)"
            for key in ("input_ids", "values", "token_of_gene")
            if not np.allclose(expected[key], found[key], rtol=1e-4, atol=1e-5, equal_nan=True)
        ]
    return problems


def _number_problems(name: str, expected: dict[str, Any], found: dict[str, Any]) -> list[str]:
    allowed = TOLERANCE * max(abs(expected["std"]), abs(expected["mean"]), 1e-6)
    keys = ("mean", "std")
    pairs = [(expected[key], found[key]) for key in keys] + list(zip(expected["first"], found["first"], strict=True))
    worst = max(abs(a - b) for a, b in pairs)
    if np.isfinite(worst) and worst <= allowed:
        return []
    return [
        f"{name}: outputs for the fixed input differ from those recorded by up to {worst:.3g} ({allowed:.1g} allowed)"
    ]


class _NotHereError(Exception):
    """Something outside the folder is needed and absent."""


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep back bars and reports: a head that an adapter brings along counts as missing from its base."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _load_checkpoint(folder: Path) -> Any:
    import torch
    import transformers

    config_file = folder / "config.json"
    if not config_file.is_file():
        raise InputError(f"{folder}: no config.json; a checkpoint holds config.json and model.safetensors")
    if not list(folder.glob("*.safetensors")):
        raise InputError(f"{folder}: no weights (model.safetensors)")
    config = json.loads(config_file.read_text(encoding="utf-8"))
    architecture = (config.get("architectures") or ["GeneCompassModel"])[0]
    auto = getattr(transformers, _auto_class_of(architecture, config))
    return auto.from_pretrained(folder, trust_remote_code=False, dtype=torch.float32)


def _auto_class_of(architecture: str, config: dict[str, Any]) -> str:
    """The Auto class that the checkpoint's own map gives its architecture; the bare model where it gives none."""
    for auto, target in config.get("auto_map", {}).items():
        if isinstance(target, str) and target.endswith(f".{architecture}"):
            return auto
    return "AutoModel"


def _load_adapter(folder: Path, base: str | os.PathLike[str] | None) -> Any:
    import torch
    import transformers
    from peft import PeftModel

    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    task = {
        "SEQ_CLS": "AutoModelForSequenceClassification",
        "TOKEN_CLS": "AutoModelForTokenClassification",
    }.get(config.get("task_type") or "", "AutoModel")
    labels = _labels_in_adapter(folder)
    options: dict[str, Any] = {"trust_remote_code": False, "dtype": torch.float32}
    if labels and task != "AutoModel":
        options["num_labels"] = labels
    model = getattr(transformers, task).from_pretrained(_base_of(folder, base), **options)
    return PeftModel.from_pretrained(model, str(folder))


def _base_of(folder: Path, base: str | os.PathLike[str] | None) -> Path:
    """Local folder of an adapter's base checkpoint."""
    from .sources import resolve

    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    named = str(base or config.get("base_model_name_or_path") or "")
    revision = config.get("revision") if base is None else None
    if not named:
        raise _NotHereError("adapter_config.json names no base checkpoint")
    try:
        return resolve(f"{named}@{revision}" if revision and not Path(named).exists() else named)
    except InputError as error:
        raise _NotHereError(f"base checkpoint {named} is not at hand: {error}") from error


def _labels_in_adapter(folder: Path) -> int | None:
    """Number of labels of the head that travels with an adapter, read from the head's shape."""
    from safetensors import safe_open

    weights = folder / "adapter_model.safetensors"
    if not weights.is_file():
        raise InputError(f"{folder}: no adapter_model.safetensors")
    with safe_open(weights, framework="pt") as tensors:
        heads = [key for key in tensors.keys() if "classifier" in key and key.endswith("weight") and "lora" not in key]  # noqa: SIM118
        return int(tensors.get_slice(heads[0]).get_shape()[0]) if len(heads) == 1 else None


def _fixed_input(config: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """One cell per species: tokens spread evenly over the vocabulary, values falling from 4 to 0.25."""
    import torch

    species = list(range(max(1, len(getattr(config, "species", None) or [""]))))
    length = min(_GENES, config.vocab_size - 2, config.max_position_embeddings)
    tokens = np.linspace(2, config.vocab_size - 1, length).astype(int).tolist()
    values = np.linspace(4.0, 0.25, length).round(6).tolist()
    batch = {
        "input_ids": torch.tensor([tokens] * len(species)),
        "values": torch.tensor([values] * len(species), dtype=torch.float32),
        "attention_mask": torch.ones(len(species), length, dtype=torch.long),
        "species": torch.tensor(species),
    }
    return batch, {"tokens": tokens, "values": values, "species": species}


def _summary(tensor: Any) -> dict[str, Any]:
    flat = tensor.detach().double().flatten()
    return {
        "shape": list(tensor.shape),
        "mean": float(flat.mean()),
        "std": float(flat.std(correction=0)),
        "first": [float(number) for number in flat[:8]],
    }


def _processor_answer(folder: Path) -> dict[str, Any] | None:
    """Tokens and values of one fixed cell: every gene of the first species in turn, counts 1, 2, 3, ..."""
    if not (folder / "genes.tsv.gz").is_file() or not (folder / "processor_config.json").is_file():
        return None
    from transformers import AutoTokenizer

    from .gene_table import GeneTable
    from .processing_genecompass import GeneCompassProcessor

    table = GeneTable.read(folder)
    known = table.frame.loc[table.frame["species"] == table.species[0], "gene_id"].to_numpy(dtype=object)
    genes: list[str] = known[np.unique(np.linspace(0, len(known) - 1, _GENES).astype(int))].tolist()
    counts = [[float(1 + index % 7) for index in range(len(genes))]]
    processor = GeneCompassProcessor.from_pretrained(folder, trust_remote_code=False)
    batch = processor(np.array(counts), genes=genes, species=table.species[0], return_tensors="np")
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    return {
        "genes": genes,
        "counts": counts[0],
        "species": table.species[0],
        "input_ids": np.asarray(batch["input_ids"])[0].tolist(),
        "values": [round(float(value), 6) for value in np.asarray(batch["values"])[0]],
        "token_of_gene": np.asarray(tokenizer.convert_tokens_to_ids(genes)).tolist(),
    }
