"""Look into a prior table: who has knowledge, whose neighbours are whose, and do homologs agree."""

import os
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from ...tokenization.errors import InputError
from ...tokenization.files import atomic_path
from ...tokenization.gene_table import GeneTable
from ...tokenization.tables import read_table
from .gene_names import match_names
from .tables import PriorTable, check_rows, coverage, known_rows

_COLOURS = 12


def unit_rows(matrix: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Rows at length 1; zero rows stay zero."""
    matrix = matrix.astype(np.float32)
    return matrix / np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), 1e-12)


def coverage_of(prior: PriorTable, table: GeneTable) -> dict[str, dict[str, Any]]:
    """Genes with knowledge per species; as recorded when the table was built, else its rows that are not zero."""
    check_rows(prior, table)
    recorded = prior.metadata.get("coverage")
    return dict(recorded) if recorded else coverage(known_rows(prior.matrix), table)


def nearest_genes(
    prior: PriorTable, table: GeneTable, gene: str, species: str, *, count: int = 10, among: str | None = None
) -> pd.DataFrame:
    """Genes nearest to a gene by cosine.

    Parameters
    ----------
    prior
        The table.
    table
        Its vocabulary.
    gene
        Symbol or Ensembl id.
    species
        Species of the gene.
    count
        How many neighbours.
    among
        Species of the neighbours; default the gene's own. Another species makes sense for aligned tables.

    Returns
    -------
    DataFrame
        ``gene_id``, ``symbol``, ``species``, ``cosine``, nearest first.

    Raises
    ------
    InputError
        If the gene is unknown or has no knowledge.
    """
    check_rows(prior, table)
    token = int(match_names([gene], table, species, where=f"gene {gene}").tokens[0])
    known = known_rows(prior.matrix)
    if not known[token]:
        raise InputError(f"{prior.name}: {gene} of {species} has no knowledge in this table")
    unit = unit_rows(prior.matrix)
    cosine = unit @ unit[token]
    candidates = known & (table.frame["species"].to_numpy() == (among or species))
    candidates[token] = False
    places = np.flatnonzero(candidates)
    places = places[np.argsort(-cosine[places], kind="stable")[:count]]
    found = table.frame.loc[places, ["gene_id", "symbol", "species"]].reset_index(drop=True)
    return found.assign(cosine=cosine[places])


def homolog_cosines(prior: PriorTable, table: GeneTable, *, seed: int = 0) -> pd.DataFrame:
    """Cosine of homologs across species, against random pairs of the same genes.

    Where a table was built with its species' spaces turned onto each other, that used these homologs; the record
    in its metadata (``held_out_homolog_cosine``) is what a rotation reaches on homologs that it did not see.

    Returns
    -------
    DataFrame
        Per species that shares tokens with another: ``pairs``, ``homologs`` and ``random`` (mean cosine),
        ``auroc`` (chance that homologs are nearer than a random pair), ``homolog_rank`` (median rank of the homolog
        among all homologs, as a share; 0.5 by chance), ``held_out_homolog_cosine``.
    """
    check_rows(prior, table)
    unit, known = unit_rows(prior.matrix), known_rows(prior.matrix)
    rng = np.random.default_rng(seed)
    rows = []
    for species in table.species:
        mine = table.frame[(table.frame["species"] == species) & (table.frame["homolog_token"] >= 0)]
        own, other = mine["token"].to_numpy(), mine["homolog_token"].to_numpy()
        both = known[own] & known[other]
        own, other = own[both], other[both]
        if len(own) < 2:
            continue
        homologs = (unit[own] * unit[other]).sum(1)
        random = (unit[own] * unit[rng.permutation(other)]).sum(1)
        sample = rng.permutation(len(own))[:1000]
        above = (unit[own[sample]] @ unit[other].T > homologs[sample][:, None]).mean(1)
        alignment = prior.metadata.get("species", {}).get(species, {}).get("alignment", {})
        rows.append(
            {
                "species": species,
                "pairs": len(own),
                "homologs": float(homologs.mean()),
                "random": float(random.mean()),
                "auroc": float((homologs[:, None] > rng.choice(random, 500)[None]).mean()),
                "homolog_rank": float(np.median(above)),
                "held_out_homolog_cosine": alignment.get("held_out_homolog_cosine"),
            }
        )
    return pd.DataFrame(rows)


def gene_labels(source: str, table: GeneTable, species: str) -> pd.Series:
    """Labels by own token: ``biotype``, or a TSV/CSV whose first column names genes and whose second labels them.

    A gene with several labels gets its rarest, which says most.
    """
    if source == "biotype":
        mine = table.frame[table.frame["species"] == species]
        return pd.Series(mine["biotype"].to_numpy(), index=mine["token"].to_numpy())
    try:
        listed = read_table(source, sep="," if ".csv" in source else "\t", dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{source}: not a readable table of gene and label ({error})") from error
    if listed.shape[1] < 2:
        raise InputError(f"{source}: needs two columns, gene and label")
    tokens, how = table.index.look_up(list(listed.iloc[:, 0]), species)
    found = pd.DataFrame({"token": tokens, "label": listed.iloc[:, 1]})[how > 0]
    found["size"] = found.groupby("label")["token"].transform("size")
    return found.sort_values("size", kind="stable").drop_duplicates("token").set_index("token")["label"]


def draw_map(
    prior: PriorTable,
    table: GeneTable,
    labels: pd.Series,
    path: str | os.PathLike[str],
    *,
    species: str,
    method: Literal["umap", "pca"] = "umap",
    most_genes: int = 8000,
    seed: int = 0,
) -> pd.DataFrame:
    """Draw the genes of a species in two dimensions, coloured by family, chromosome or any other label.

    Parameters
    ----------
    prior, table
        The table and its vocabulary.
    labels
        Label by own token; the most frequent ones get a colour, the other genes are grey.
    path
        Figure to write: ``.png``, ``.svg`` or ``.pdf``.
    species
        Whose genes.
    method
        ``umap`` or ``pca``.
    most_genes
        Genes drawn at most (labelled ones first).
    seed
        Of sample and layout.

    Returns
    -------
    DataFrame
        ``token``, ``x``, ``y``, ``label`` as drawn.

    Raises
    ------
    InputError
        If fewer than ten genes of the species have knowledge.
    ImportError
        If matplotlib or umap-learn is not installed.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('drawing needs matplotlib: pip install "genecompass[plots]"') from error

    check_rows(prior, table)
    tokens = np.flatnonzero(known_rows(prior.matrix) & (table.frame["species"].to_numpy() == species))
    if len(tokens) < 10:
        raise InputError(f"{prior.name}: only {len(tokens)} {species} genes have knowledge; nothing to draw")
    names = labels.reindex(tokens)
    shown = names.value_counts().index[:_COLOURS]
    names = names.where(names.isin(shown))
    order = np.random.default_rng(seed).permutation(len(tokens))
    order = np.concatenate([order[names.notna().to_numpy()[order]], order[names.isna().to_numpy()[order]]])[:most_genes]
    tokens, names = tokens[order], names.iloc[order]
    x, y = _layout(unit_rows(prior.matrix[tokens]), method, seed).T

    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.subplots()
    grey = names.isna().to_numpy()
    axes.scatter(x[grey], y[grey], s=3, color="0.85", linewidths=0, label="other", rasterized=True)
    palette = matplotlib.colormaps["tab20"].colors  # type: ignore[attr-defined]
    for place, label in enumerate(shown):
        mine = (names == label).to_numpy()
        text = f"{label} ({mine.sum()})"
        axes.scatter(x[mine], y[mine], s=9, color=palette[place], linewidths=0, label=text, rasterized=True)
    axes.set(xticks=[], yticks=[], xlabel=f"{method.upper()} 1", ylabel=f"{method.upper()} 2")
    axes.set_title(f"{prior.name}: {len(tokens):,} {species} genes")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=8, markerscale=2)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150)
    return pd.DataFrame({"token": tokens, "x": x, "y": y, "label": names.to_numpy()})


def _layout(vectors: npt.NDArray[np.float32], method: str, seed: int) -> npt.NDArray[np.float32]:
    if method == "pca":
        centred = vectors - vectors.mean(0)
        _, _, axes = np.linalg.svd(centred, full_matrices=False)
        return np.asarray(centred @ axes[:2].T)
    if method != "umap":
        raise InputError(f"map method {method!r} is not known; choose umap or pca")
    try:
        import umap
    except ImportError as error:
        raise ImportError('UMAP needs umap-learn: pip install "genecompass[plots]", or draw with pca') from error
    return np.asarray(umap.UMAP(metric="cosine", random_state=seed, n_jobs=1).fit_transform(vectors))
