"""Put prior-knowledge tables into a checkpoint."""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...tokenization.checkpoint_files import check_checkpoint
from ...tokenization.errors import InputError
from ...tokenization.files import atomic_path, write_json
from ...tokenization.gene_table import GeneTable
from ...tokenization.manifest import write_manifest
from ...tokenization.sources import resolve
from .tables import PRIOR_NAMES, PriorTable, check_rows, read_tables

_WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "manifest.json", "*.partial.*")


def attach_priors(
    checkpoint: str | os.PathLike[str],
    tables: Sequence[str | os.PathLike[str]] | Sequence[PriorTable],
    out: str | os.PathLike[str],
) -> Path:
    """Write a copy of a checkpoint that holds these tables as buffers.

    A prior that the checkpoint has in this width gets new contents. A prior that it lacks, or has in another width,
    gets a new projection whose part in the fusion starts at zero: the model computes what it did before, and learns
    to use the table when it is trained on.

    Parameters
    ----------
    checkpoint
        Folder, or name on the Hub, of an unfolded checkpoint with its gene table.
    tables
        Prior tables, or files of them.
    out
        Folder to write; must not exist.

    Returns
    -------
    Path
        `out`.

    Raises
    ------
    InputError
        If there is no checkpoint, it is folded, the tables were built for another vocabulary, or `out` exists.

    Examples
    --------
    >>> attach_priors("my_checkpoint", ["priors.safetensors"], "my_checkpoint_with_priors")  # doctest: +SKIP
    """
    out = Path(out)
    if out.exists():
        raise InputError(f"{out}: already exists; name another folder")
    folder = Path(resolve(checkpoint))
    if not (folder / "config.json").is_file():
        raise InputError(f"{checkpoint}: no checkpoint here (no config.json)")
    check_checkpoint(folder)
    priors = [t if isinstance(t, PriorTable) else None for t in tables]
    given = [prior for prior in priors if prior is not None]
    given += read_tables([t for t in tables if not isinstance(t, PriorTable)])
    if not given:
        raise InputError("no prior table given to attach")
    table = GeneTable.read(folder)
    for prior in given:
        check_rows(prior, table)

    model = _with_priors(load_whole(folder), given, table)
    with atomic_path(out) as temporary:
        shutil.copytree(folder, temporary, ignore=shutil.ignore_patterns(*_WEIGHTS))
        model.save_pretrained(temporary)
        write_json(temporary / "priors.json", {prior.name: prior.metadata for prior in given})
        write_manifest(temporary, "checkpoint", derived_from=folder)
    return out


def load_whole(folder: Path) -> Any:
    """A checkpoint as the class that it was saved as; an `InputError` for one that is folded or of another kind."""
    from ... import modeling_genecompass as network

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if config.get("folded_rows") is not None:
        raise InputError(f"{folder}: a folded checkpoint has its priors baked in; attach to the unfolded one")
    name = (config.get("architectures") or ["GeneCompassModel"])[0]
    if name not in network.__all__:
        raise InputError(f"{folder}: architecture {name!r} is none of GeneCompass")
    return getattr(network, name).from_pretrained(folder)


@torch.no_grad()
def _with_priors(model: Any, priors: Sequence[PriorTable], table: GeneTable) -> Any:
    """The model with these tables; its class, other tables and weights stay."""
    old = dict(model.config.priors)
    widths = {**old, **{prior.name: prior.width for prior in priors}}
    order = [*(name for name in PRIOR_NAMES if name in widths), *(name for name in widths if name not in PRIOR_NAMES)]
    if list(old) == order and old == widths:
        grown = model
    else:
        settings = model.config.to_dict()
        settings.update(priors={name: widths[name] for name in order}, prior_order=order)
        grown = type(model)(type(model.config).from_dict(settings)).to(model.dtype)
        _copy_weights(model, grown, old, {name: widths[name] for name in order})

    contents = {name: _embeddings(grown).prior_tables.get_buffer(name) for name in order}
    contents.update({prior.name: torch.from_numpy(prior.matrix.astype(np.float32)) for prior in priors})
    grown.set_prior_knowledge(contents)
    grown.set_prior_rows(torch.from_numpy(np.stack([table.prior_rows(name) for name in table.species])))
    return grown.eval()


def _copy_weights(model: Any, grown: Any, old: dict[str, int], new: dict[str, int]) -> None:
    """Copy everything; the fusion's columns follow their prior, those of new priors are zero."""
    state, target = model.state_dict(), grown.state_dict()
    fusion = next(name for name in state if name.endswith("fusion_genes.weight"))
    size = model.config.hidden_size
    target[fusion].zero_()
    target[fusion][:, :size] = state[fusion][:, :size]
    for place, name in enumerate(new):
        if old.get(name) == new[name]:
            before = list(old).index(name)
            kept = state[fusion][:, size * (1 + before) : size * (2 + before)]
            target[fusion][:, size * (1 + place) : size * (2 + place)] = kept
    for name, tensor in state.items():
        if name != fusion and name in target and target[name].shape == tensor.shape:
            target[name].copy_(tensor)


def _embeddings(model: Any) -> Any:
    return next(module for module in model.modules() if hasattr(module, "prior_tables"))
