"""A fitted gene model on disk: names and settings as JSON, numbers as safetensors."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ...tokenization.errors import InputError
from ...tokenization.files import write_json
from .additive import Additive
from .fit import FitRecord, FitSettings
from .genes import GeneInputs, GeneMember, GeneOptions, network_of
from .graphs import GeneGraph

FORMAT = "genecompass-response-1"
NAMES, NUMBERS = "response.json", "response.safetensors"


def write_members(folder: Path, members: list[GeneMember], about: dict[str, Any]) -> None:
    """Write into a folder that exists: ``response.json`` and ``response.safetensors``.

    Parameters
    ----------
    folder
        Where; see `atomic_path`.
    members
        Fitted on the same data, with the same tables and graphs.
    about
        What else the model knows, as JSON.

    Examples
    --------
    >>> write_members(Path("my_response"), members, {})  # doctest: +SKIP
    """
    numbers: dict[str, Tensor] = {}
    network = members[0].network
    tables = {"measured": network.gene_states, "perturbed": network.seen_states}
    for name, states in tables.items():
        if states.linear is not None:
            numbers[f"tables.{name}"] = states.table.clone()
    for name, hop in (("co_expression", network.co_expression), ("go", network.go)):
        if hop is not None:
            entries = hop.matrix.to_sparse_coo().coalesce()
            numbers[f"graphs.{name}.index"] = entries.indices().clone()
            numbers[f"graphs.{name}.weight"] = entries.values().clone()
    for i, member in enumerate(members):
        numbers |= {f"{i}.network.{key}": value.clone() for key, value in member.network.state_dict().items()}
        numbers[f"{i}.weights"] = torch.from_numpy(member.additive.weights)
        numbers |= {f"{i}.mean.{order}": torch.from_numpy(mean) for order, mean in member.additive.means.items()}
        numbers[f"{i}.noise"] = torch.from_numpy(member.noise)
        numbers[f"{i}.shares"] = torch.from_numpy(member.shares)
    save_file({key: value.contiguous() for key, value in numbers.items()}, folder / NUMBERS)
    content = {
        "format": FORMAT,
        **about,
        "perturbable": list(members[0].perturbable),
        "options": asdict(members[0].options),
        "members": [
            {"genes": list(m.additive.genes), "penalty": m.additive.penalty, "unit": m.unit, **m.record.as_dict()}
            for m in members
        ],
    }
    write_json(folder / NAMES, content)


def read_members(folder: Path) -> tuple[list[GeneMember], dict[str, Any]]:
    """What `write_members` wrote.

    Raises
    ------
    InputError
        No such folder, another format, or numbers that do not belong to the names.

    Examples
    --------
    >>> members, about = read_members(Path("my_response"))  # doctest: +SKIP
    """
    if not (folder / NAMES).is_file() or not (folder / NUMBERS).is_file():
        raise InputError(f"{folder}: no response model here; `genecompass respond fit ... -o {folder}` writes one")
    try:
        content = json.loads((folder / NAMES).read_text(encoding="utf-8"))
        numbers = load_file(folder / NUMBERS)
        if content["format"] != FORMAT:
            raise InputError(f"{folder}: format {content['format']!r}, but this version reads {FORMAT!r}; fit it anew")
        return [_member(i, content, numbers) for i in range(len(content["members"]))], content
    except InputError:
        raise
    except Exception as error:  # whatever a damaged file makes a parser say
        raise InputError(f"{folder}: the response model is damaged ({str(error)[:80]}); fit it anew") from error


def _member(i: int, content: dict[str, Any], numbers: dict[str, Tensor]) -> GeneMember:
    settings = dict(content["options"])
    options = GeneOptions(**{**settings, "fit": FitSettings(**settings["fit"])})
    one = content["members"][i]
    inputs = GeneInputs(tuple(content["measured"]), tuple(content["perturbable"]))
    network = network_of(
        inputs,
        options,
        numbers.get("tables.measured"),
        numbers.get("tables.perturbed"),
        _graph(numbers, "co_expression", len(inputs.measured)),
        _graph(numbers, "go", len(inputs.perturbable)),
    )
    start = f"{i}.network."
    network.load_state_dict({key.removeprefix(start): v for key, v in numbers.items() if key.startswith(start)})
    means = {int(k.split(".")[-1]): v.numpy() for k, v in numbers.items() if k.startswith(f"{i}.mean.")}
    weights = numbers[f"{i}.weights"].numpy().astype(np.float64)
    additive = Additive(tuple(one["genes"]), weights, means, float(one["penalty"]))
    record = FitRecord(one["best_epoch"], one["train"], one["validation"])
    shares, noise = numbers[f"{i}.shares"].numpy(), numbers[f"{i}.noise"].numpy()
    return GeneMember(network.eval(), additive, inputs.perturbable, float(one["unit"]), shares, noise, record, options)


def _graph(numbers: dict[str, Tensor], name: str, size: int) -> GeneGraph | None:
    if f"graphs.{name}.index" not in numbers:
        return None
    row, column = numbers[f"graphs.{name}.index"].numpy()
    return GeneGraph(row, column, numbers[f"graphs.{name}.weight"].numpy(), size)
