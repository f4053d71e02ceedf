"""From a configuration and a gene table to a model that is ready to train."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from scipy.sparse.linalg import svds

from ...dataset_scripts.prior_knowledge.tables import check_rows, read_tables
from ...modeling_genecompass import GeneCompassConfig, GeneCompassForMaskedGeneModeling
from ...tokenization.checkpoint_files import check_checkpoint
from ...tokenization.errors import InputError
from ...tokenization.gene_table import SPECIAL_TOKENS, GeneTable
from ...tokenization.profile import BAG_COLUMNS
from .config import PretrainConfig
from .stream import Row

# of the start from statistics: axes of the correspondence analysis, their scale, and that of the random part
START_AXES = 24
START_SCALE = 1.0
RANDOM_PART = 0.02
# width of the cell vector, and axes of the corpus in it, unless model.overrides says otherwise
CELL_SIZE = 128


def limit_table(table: GeneTable, gene_ids: Iterable[str]) -> GeneTable:
    """A gene table of some of the genes: same order, new tokens without gaps.

    A gene whose homolog's token is wanted brings the homolog along, so that both species keep sharing it.

    Parameters
    ----------
    table
        The gene table.
    gene_ids
        Genes to keep.

    Raises
    ------
    InputError
        If none of the genes is in the table.

    Examples
    --------
    >>> import pandas as pd
    >>> genes = pd.DataFrame({"gene_id": ["ENSG1", "ENSG2"], "species": "human"})
    >>> limit_table(GeneTable.from_genes(genes), ["ENSG2"]).frame["gene_id"].tolist()
    ['<pad>', '<mask>', 'ENSG2']
    """
    frame = table.frame
    keep = frame["gene_id"].isin(set(gene_ids)).to_numpy(copy=True)
    if not keep.any():
        raise InputError("vocabulary and corpus do not fit: no gene of the corpus is in the gene table")
    keep[: len(SPECIAL_TOKENS)] = True
    homologs = frame["homolog_token"].to_numpy()
    keep[homologs[keep & (homologs >= 0)]] = True
    limited = frame.loc[keep].reset_index(drop=True)
    new_token = np.full(len(frame), -1)
    new_token[np.flatnonzero(keep)] = np.arange(int(keep.sum()))
    limited["token"] = np.arange(len(limited))
    old = limited["homolog_token"].to_numpy()
    limited["homolog_token"] = np.where(old >= 0, new_token[old], -1)
    return GeneTable(limited)


def build_model(config: PretrainConfig, table: GeneTable) -> GeneCompassForMaskedGeneModeling:
    """A masked-gene model for a gene table, with random weights or those of a checkpoint, and its priors in place.

    Seed the random number generator first.

    Raises
    ------
    InputError
        Priors or a checkpoint of another vocabulary; an unknown field in ``model.overrides``.
    """
    if config.model.from_checkpoint is not None:
        return _attending(_from_checkpoint(config, table), config)
    tables = read_tables([config.model.priors]) if config.model.priors else []
    if config.model.use_priors is not None:
        known = {prior.name for prior in tables}
        missing = [name for name in config.model.use_priors if name not in known]
        if missing:
            raise InputError(
                f"model.use_priors: {missing[0]!r} is not in {config.model.priors or 'model.priors, which is not set'}"
                f"{'; it holds ' + ', '.join(sorted(known)) if known else ''}"
            )
        tables = [prior for prior in tables if prior.name in config.model.use_priors]
    for prior in tables:
        check_rows(prior, table)
    model = GeneCompassForMaskedGeneModeling(_model_config(config, table, {p.name: p.width for p in tables}))
    if tables:
        model.set_prior_knowledge({prior.name: torch.from_numpy(np.asarray(prior.matrix)).float() for prior in tables})
    model.set_prior_rows(torch.from_numpy(np.stack([table.prior_rows(name) for name in table.species])))
    return _attending(model, config)


def _attending(model: GeneCompassForMaskedGeneModeling, config: PretrainConfig) -> GeneCompassForMaskedGeneModeling:
    """The model, with the attention that was asked for."""
    if config.model.attention != "auto":
        try:
            model.set_attn_implementation(config.model.attention)
        except (ImportError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise InputError(f"model.attention={config.model.attention} does not run here: {reason}") from error
    return model


@torch.no_grad()
def start_from_statistics(model: GeneCompassForMaskedGeneModeling, cells: Sequence[Row]) -> None:
    """Start from what can be counted: overall gene frequency, the mean value, which genes share cells.

    The heads' biases are set so that an untrained model predicts overall frequency and the mean value; the gene
    embeddings get the leading axes of a correspondence analysis.

    Parameters
    ----------
    model
        A model with random weights.
    cells
        Tokenised training cells.
    """
    tokens = np.concatenate([np.asarray(cell["input_ids"], dtype=np.int64) for cell in cells])
    _start_embeddings(model, cells, tokens)
    # half a count keeps unseen genes possible, and special tokens far away
    counts = np.bincount(tokens, minlength=model.config.vocab_size) + 0.5
    counts[: len(SPECIAL_TOKENS)] = 1e-3
    bias = np.log(counts / counts.sum())
    model.decoder.bias.copy_(torch.from_numpy(bias - bias.max()))
    model.value_decoder.bias.fill_(float(np.mean(np.concatenate([np.asarray(cell["values"]) for cell in cells]))))


def _start_embeddings(
    model: GeneCompassForMaskedGeneModeling, cells: Sequence[Row], tokens: npt.NDArray[np.int64]
) -> None:
    """Add to the random gene embeddings where genes lie by the cells they are expressed in.

    Principal gene coordinates of a correspondence analysis of cells by genes: their products with a cell's
    coordinates say how far a gene's frequency in that cell is from the overall one, species included, which is what
    the tied id head has to express. Rare genes would take thousands of steps to get there on their own.
    """
    size, vocabulary = model.config.hidden_size, model.config.vocab_size
    lengths = np.array([len(cell["input_ids"]) for cell in cells])
    weight = np.repeat(1 / lengths, lengths)
    rows = np.repeat(np.arange(len(cells)), lengths)
    counts = np.bincount(tokens, minlength=vocabulary)
    mass = np.bincount(tokens, weights=weight, minlength=vocabulary) / len(cells)
    scale = np.where(mass > 0, 1 / np.sqrt(np.maximum(mass, 1e-12)), 0)
    # standardised residuals, without the trivial first axis: sqrt(n) (p / sqrt(mass) - sqrt(mass)) cell by cell
    table = sparse.csr_matrix((weight * scale[tokens] / np.sqrt(len(cells)), (rows, tokens)), (len(cells), vocabulary))
    axes = min(size, START_AXES, min(table.shape) - 2)
    if axes < 1:
        return
    start = np.random.default_rng(0).standard_normal(min(table.shape))
    _, strengths, directions = svds(table, k=axes + 1, v0=start)
    order = np.argsort(-strengths)[1:]
    directions = directions[order]
    # an axis has no sign of its own: its largest entry is positive, whatever the order of the cells
    largest = directions[np.arange(axes), np.abs(directions).argmax(1)]
    coordinates = (directions * (np.sign(largest) * strengths[order])[:, None]).T * scale[:, None]
    # few observations say little: shrink, and cap what remains
    coordinates *= (counts / (counts + 20))[:, None]
    coordinates = np.clip(coordinates, -3, 3)
    offset = torch.zeros(vocabulary, size)
    offset[:, :axes] = torch.from_numpy(coordinates).float()
    embeddings = model.genecompass.embeddings.word_embeddings.weight
    # random parts would act as noise in the tied head, which rare genes are slow to unlearn
    embeddings *= min(1.0, RANDOM_PART / model.config.initializer_range)
    embeddings += START_SCALE * offset


def _model_config(config: PretrainConfig, table: GeneTable, priors: dict[str, int]) -> GeneCompassConfig:
    settings: dict[str, Any] = {
        "vocab_size": table.vocab_size,
        "species": list(table.species),
        "max_position_embeddings": config.data.max_length,
        "unknown_rank": config.masking.task == "hidden_rank",
        "priors": priors,
        # no pre-training loss reaches the species slot: classifiers on this checkpoint start better from the mean
        "classifier_pooling": "mean",
    }
    if config.masking.task == "count_split":
        settings |= {"cell_size": CELL_SIZE, "cell_axes": CELL_SIZE, "cell_profile": BAG_COLUMNS}
        settings["rank_positions"] = False
        settings["classifier_pooling"] = "cell"
    fixed = [name for name in config.model.overrides if name in ("vocab_size", "species", "priors")]
    if fixed:
        raise InputError(f"model.overrides: {fixed[0]!r} follows from the gene table and the priors; leave it out")
    known = GeneCompassConfig().to_dict()
    unknown = [name for name in config.model.overrides if name not in known]
    if unknown:
        raise InputError(f"model.overrides: GeneCompassConfig has no field {unknown[0]!r}")
    preset = getattr(GeneCompassConfig, config.model.preset)
    return preset(**{**settings, **config.model.overrides})


def _from_checkpoint(config: PretrainConfig, table: GeneTable) -> GeneCompassForMaskedGeneModeling:
    folder = Path(str(config.model.from_checkpoint))
    check_checkpoint(folder)
    theirs = GeneTable.read(folder)
    if theirs.frame["gene_id"].tolist() != table.frame["gene_id"].tolist():
        raise InputError(
            f"model.from_checkpoint: {folder} has another vocabulary ({theirs.vocab_size} tokens) than the gene table "
            f"({table.vocab_size}); set gene_table to the checkpoint and data.limit_to_corpus_genes to false"
        )
    model = GeneCompassForMaskedGeneModeling.from_pretrained(folder)
    if config.masking.task == "hidden_rank" and not model.config.unknown_rank:
        raise InputError(f"{folder}: this model has no position for an unknown rank; use masking.task=published")
    if config.masking.task == "count_split" and not model.config.cell_size:
        raise InputError(f"{folder}: this model has no cell vector to train; use masking.task=hidden_rank")
    if config.data.max_length > model.config.max_position_embeddings:
        raise InputError(
            f"data.max_length {config.data.max_length} is longer than the {model.config.max_position_embeddings} "
            f"positions of {folder}"
        )
    return model
