"""Add a species to a trained checkpoint: one-to-one homologs share tokens, other genes get rows of their own."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from ..tokenization.errors import InputError
from ..tokenization.files import atomic_path, write_json
from ..tokenization.gene_table import SPECIAL_TOKENS, WEIGHT_COLUMN, GeneTable
from ..tokenization.manifest import write_manifest
from ..tokenization.processing_genecompass import GeneCompassProcessor
from ..tokenization.sources import model_or_default, resolve
from .prior_knowledge.attach import load_whole
from .vocabulary.annotation import read_annotation
from .vocabulary.annotation import read_table as read_text_table

TIERS = ("shared", "homologs", "none")
_SUPPORT = ("n_support", "support", "num_support", "support_count")


@dataclass(frozen=True)
class NewSpecies:
    """What was added.

    Parameters
    ----------
    folder
        The new checkpoint.
    genes
        One row a gene of the species: ``gene_id``, ``symbol``, ``tier`` (``shared``: takes the token of its one-to-one
        homolog; ``homologs``: own token, its row the mean of its homologs'; ``none``: own token, its row drawn like
        the others), ``homologs``, ``support``.
    """

    folder: Path
    genes: pd.DataFrame

    @property
    def by_tier(self) -> dict[str, int]:
        """Number of genes of each tier."""
        return {tier: int((self.genes["tier"] == tier).sum()) for tier in TIERS}


def add_species(
    checkpoint: str | os.PathLike[str] | None,
    output: str | os.PathLike[str],
    *,
    species: str,
    annotation: str | os.PathLike[str],
    homologs: Sequence[str | os.PathLike[str]],
    like: str | None = None,
    min_support: int = 1,
    seed: int = 0,
) -> NewSpecies:
    """Write a copy of a checkpoint that also reads cells of another species.

    Nothing that the checkpoint computes for its old species changes: old rows are copied, and none is trained. With
    cells of the new species, `genecompass.adapt` goes on from here.

    Parameters
    ----------
    checkpoint
        Folder or ``owner/name[@revision]``; None for the one that travels with the package.
    output
        Folder to write; must not exist.
    species
        Name of the new species.
    annotation
        Its genes: GTF, or a table with columns ``gene_id``, ``symbol`` and ``biotype``.
    homologs
        Tables with one column of ids of the new species and one of a species that the checkpoint knows, such as those
        of HGNC's Comparison of Orthology Predictions; a column ``n_support`` counts the sources of a pair.
    like
        Old species at whose vector the new one's starts; the first by default.
    min_support
        Pairs that fewer sources name are left out, where a table counts them.
    seed
        Of the rows of genes without any homolog.

    Returns
    -------
    NewSpecies

    Raises
    ------
    InputError
        A species that is there, an annotation of another organism, tables without a pair that fits, a folder that is
        there already.

    Examples
    --------
    >>> add_species("runs/tiny", "runs/tiny_fish", species="zebrafish", annotation="zebrafish.tsv", min_support=3,
    ...             homologs=["hcop_human_zebrafish.tsv.gz"]).by_tier  # doctest: +SKIP
    {'shared': 9090, 'homologs': 5615, 'none': 7171}
    """
    output = Path(output)
    if output.exists():
        raise InputError(f"{output}: is there already; choose another name")
    folder = resolve(model_or_default(checkpoint))
    table = GeneTable.read(folder)
    if species in table.species:
        raise InputError(f"species {species!r} is in this checkpoint already")
    like = like or table.species[0]
    if like not in table.species:
        raise InputError(f"like={like!r}: the checkpoint knows {', '.join(table.species)}")
    genes = read_annotation(annotation)
    taken = genes["gene_id"].isin(set(table.frame["gene_id"]))
    if taken.any():
        known = table.frame.set_index("gene_id").loc[genes["gene_id"][taken].iloc[0], "species"]
        raise InputError(f"{annotation}: {int(taken.sum())} of {len(genes)} genes are {known} genes, not {species}")
    pairs = _pairs(homologs, table, genes, min_support)
    described = _tiers(genes, pairs, table)
    grown = _grown_table(table, described, pairs, species)
    model = _grown_model(load_whole(folder), table, grown, described, pairs, table.species.index(like), seed)
    with atomic_path(output) as temporary:
        temporary.mkdir()
        for name in ("pretraining.json", "pretraining.yaml"):
            if (folder / name).is_file():
                shutil.copy2(folder / name, temporary / name)
        model.save_pretrained(temporary)
        length = model.config.max_position_embeddings
        GeneCompassProcessor.from_gene_table(grown, max_length=length).save_pretrained(temporary)
        described.to_csv(temporary / f"species_{species}.tsv", sep="\t", index=False)
        result = NewSpecies(output, described)
        write_json(
            temporary / f"species_{species}.json",
            {"species": species, "like": like, "min_support": min_support, "genes": result.by_tier, "training": "none"},
        )
        write_manifest(temporary, "checkpoint", derived_from=folder)
    return result


def _pairs(
    files: Sequence[str | os.PathLike[str]], table: GeneTable, genes: pd.DataFrame, min_support: int
) -> pd.DataFrame:
    """Pairs of a new gene and a token: ``gene_id``, ``token`` (in cells), ``species``, ``support``."""
    new_ids = set(genes["gene_id"])
    row_of = pd.Series(np.arange(len(table)), index=table.frame["gene_id"])
    found = []
    for path in files:
        listed = read_text_table(path)
        ours = next((name for name in listed if listed[name].isin(new_ids).any()), None)
        theirs = next((name for name in listed if name != ours and listed[name].isin(row_of.index).any()), None)
        if ours is None or theirs is None:
            raise InputError(
                f"{path}: no column of ids of {'the annotation' if ours is None else 'the checkpoint'}; a table of "
                "homologs has one column of Ensembl ids of each species"
            )
        counted = next((name for name in _SUPPORT if name in listed), None)
        support = pd.to_numeric(listed[counted], errors="coerce").fillna(1) if counted else 1
        pair = pd.DataFrame({"gene_id": listed[ours], "other": listed[theirs], "support": support})
        pair = pair[pair["gene_id"].isin(new_ids) & pair["other"].isin(row_of.index) & (pair["support"] >= min_support)]
        found.append(pair)
    pairs = pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=["gene_id", "other", "support"])
    if pairs.empty:
        raise InputError(f"no pair of homologs fits both gene tables with min_support={min_support}; check the files")
    row = row_of[pairs["other"]].to_numpy()
    pairs["token"] = table.token_in_cell[row]
    pairs["species"] = table.frame["species"].to_numpy()[row]
    return pairs.sort_values("support", ascending=False, kind="stable").drop_duplicates(["gene_id", "token", "species"])


def _tiers(genes: pd.DataFrame, pairs: pd.DataFrame, table: GeneTable) -> pd.DataFrame:
    """Every new gene with its tier; one-to-one with the leading species first, then with the next."""
    described = genes[["gene_id", "symbol", "biotype"]].copy()
    described["homolog"] = -1
    free = set(described["gene_id"])
    used: set[int] = set()
    for species in table.species:
        mine = pairs[pairs["species"] == species]
        alone = mine[~mine["gene_id"].duplicated(keep=False) & ~mine["token"].duplicated(keep=False)]
        alone = alone[alone["gene_id"].isin(free) & ~alone["token"].isin(used)]
        one_to_one = alone.set_index("gene_id")["token"]
        here = described["gene_id"].isin(one_to_one.index)
        described.loc[here, "homolog"] = one_to_one[described.loc[here, "gene_id"]].to_numpy()
        free -= set(one_to_one.index)
        used |= set(one_to_one.tolist())
    by_gene = pairs.groupby("gene_id")
    described["homologs"] = described["gene_id"].map(by_gene["token"].nunique()).fillna(0).astype(int)
    described["support"] = described["gene_id"].map(by_gene["support"].max()).fillna(0)
    some = np.where(described["homologs"] > 0, "homologs", "none")
    described["tier"] = np.where(described["homolog"] >= 0, "shared", some)
    return described


def _grown_table(table: GeneTable, described: pd.DataFrame, pairs: pd.DataFrame, species: str) -> GeneTable:
    """The table with the new genes at its end; medians and weights are those of homologs until cells say better."""
    size = len(table)
    new = pd.DataFrame(
        {
            "token": np.arange(size, size + len(described)),
            "gene_id": described["gene_id"],
            "symbol": described["symbol"],
            "species": species,
            "biotype": described["biotype"],
            "homolog_token": described["homolog"],
        }
    )
    for name in ("median", WEIGHT_COLUMN):
        if name in table.frame:
            of_token = table.frame[name].to_numpy(dtype=float)
            mean = pairs.assign(value=of_token[pairs["token"]]).groupby("gene_id")["value"].mean()
            new[name] = described["gene_id"].map(mean).to_numpy(dtype=float)
    frame = pd.concat([table.frame, new], ignore_index=True)
    text = [name for name in frame if name not in ("median", WEIGHT_COLUMN, "token", "homolog_token")]
    return GeneTable(frame.fillna(dict.fromkeys(text, "")))


@torch.no_grad()
def _grown_model(
    model: Any,
    table: GeneTable,
    grown: GeneTable,
    described: pd.DataFrame,
    pairs: pd.DataFrame,
    like: int,
    seed: int,
) -> Any:
    """The model with rows of the new tokens and a slot of the new species; everything old is copied."""
    settings = {**model.config.to_dict(), "vocab_size": len(grown), "species": list(grown.species)}
    larger = type(model)(type(model.config).from_dict(settings)).eval()
    mean_of = _homolog_weights(described, pairs)
    state = model.state_dict()
    old_vocab, old_species = len(table), len(table.species)
    for name, tensor in larger.state_dict().items():
        old = state[name]
        if tensor.shape == old.shape:
            tensor.copy_(old)
            continue
        target = tensor.zero_()
        target[tuple(slice(0, size) for size in old.shape)] = old
        by_species = old.shape[0] == old_species and tensor.shape[0] == old_species + 1
        if by_species and old.shape[1:] and old.shape[1] == old_vocab:
            target[old_species, :old_vocab] = old[like]
        elif by_species:
            target[old_species] = old[like]
        if name.endswith("prior_rows"):
            continue
        axis = list(old.shape).index(old_vocab) if old_vocab in old.shape else None
        if axis == 0:
            target[old_vocab:] = _new_rows(old, mean_of, seed)
        elif axis == 1:
            target[:, old_vocab:] = _new_rows(target[:, :old_vocab].T, mean_of, None).T
    medians = np.stack([grown.cell_medians(name) for name in grown.species]).astype(np.float32)
    head = larger.base_model.cell_head
    if head is not None:
        # rows of the old species stay as they were counted
        head.medians[old_species] = torch.from_numpy(medians[old_species])
    larger.set_prior_rows(torch.from_numpy(np.stack([grown.prior_rows(name) for name in grown.species])))
    return larger


def _homolog_weights(described: pd.DataFrame, pairs: pd.DataFrame) -> list[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
    """For every new gene the tokens of its homologs and their shares; both empty where there is none."""
    groups = dict(list(pairs.groupby("gene_id")))
    found = []
    for gene in described["gene_id"]:
        part = groups.get(gene)
        if part is None:
            found.append((np.zeros(0, np.int64), np.zeros(0)))
            continue
        support = part["support"].to_numpy(dtype=float)
        found.append((part["token"].to_numpy(dtype=np.int64), support / support.sum()))
    return found


def _new_rows(
    old: torch.Tensor, mean_of: list[tuple[npt.NDArray[Any], npt.NDArray[Any]]], seed: int | None
) -> torch.Tensor:
    """Rows of new genes: the mean of their homologs', else drawn like the old ones (their mean without a seed)."""
    known = old[len(SPECIAL_TOKENS) :].double()
    mean = known.mean(0)
    rows = mean.expand(len(mean_of), *mean.shape).clone()
    if seed is not None and old.dim() == 2:
        apart = np.cov(known.numpy(), rowvar=False).reshape(known.shape[1], known.shape[1])
        draw = np.random.default_rng(seed).multivariate_normal(
            mean.numpy(), apart, len(mean_of), check_valid="ignore", method="eigh"
        )
        rows = torch.from_numpy(draw)
    for place, (tokens, shares) in enumerate(mean_of):
        if len(tokens):
            weights = torch.from_numpy(shares).view(-1, *([1] * (old.dim() - 1)))
            rows[place] = (old[torch.from_numpy(tokens)].double() * weights).sum(0)
    return rows.to(old.dtype)
