"""``gc.fit_response`` and `ResponseModel`: fit on one data set, predict conditions nobody measured."""

import difflib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ...tokenization.errors import InputError
from ...tokenization.files import atomic_path
from ...tokenization.progress import Progress
from .checkpoint_tables import input_table
from .conditions import all_genes, parse_wanted
from .effects import Effects, log_normalised, open_h5ad, read_effects
from .features import GeneFeatures
from .genes import GeneInputs, GeneMember, GeneOptions, fit_genes
from .saved import read_members, write_members

Matrix = npt.NDArray[np.float64]
# cells behind the co-expression graph at most
GRAPH_CELLS = 5000


@dataclass
class ResponseModel:
    """A fitted response model.

    Parameters
    ----------
    members
        Networks with different seeds and validation conditions; they are averaged.
    measured
        Names of the measured genes.
    conditions
        Names of the conditions it was fitted on.
    control_mean
        (measured genes,) None where it was not known.
    about
        Settings, coverage of the gene table, and the like.

    Examples
    --------
    >>> import genecompass as gc
    >>> response = gc.ResponseModel.load("my_response")  # doctest: +SKIP
    >>> response.predict(["KLF1+MAP2K6"]).layers["std"]  # doctest: +SKIP
    """

    members: list[GeneMember]
    measured: tuple[str, ...]
    conditions: tuple[str, ...]
    control_mean: Matrix | None = None
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def perturbed(self) -> tuple[str, ...]:
        """Genes that were perturbed in some condition of the data."""
        return self.members[0].additive.genes

    def predict(self, conditions: Iterable[str]) -> Any:
        """Effects of conditions, measured or not.

        Parameters
        ----------
        conditions
            ``A`` or ``A+B``.

        Returns
        -------
        AnnData
            One row a condition. X: predicted mean log-normalised expression, or the effect where the data held
            effects; ``layers["delta"]``: effect; ``layers["std"]``: its standard deviation, from the spread of the
            members and the errors on held-out conditions like it. obs: ``condition``, ``in_training``, and
            ``never_perturbed``, its genes that no training condition perturbed.

        Raises
        ------
        InputError
            A condition without a gene, or a gene that is neither perturbed nor measured in the data.

        Examples
        --------
        >>> from genecompass.inference.response.simulation import SimulationOptions, simulate_genes
        >>> cells = simulate_genes(SimulationOptions(genes=20, regulators=6, pairs=4, cells=9, control_cells=9)).adata
        >>> response = fit_response(cells, perturbation="condition", control="control", members=1)
        >>> response.predict(["G0+G1"]).obs["never_perturbed"].tolist()
        ['']
        """
        wanted = parse_wanted(list(conditions))
        if not wanted:
            raise InputError("no condition given; give at least one, such as A or A+B")
        known, perturbable = set(self.perturbed), set(self.members[0].perturbable)
        for genes in wanted:
            for gene in genes:
                if gene not in perturbable:
                    near = difflib.get_close_matches(gene, sorted(perturbable), 1)
                    hint = f"did you mean {near[0]!r}?" if near else "check the symbol"
                    raise InputError(f"condition {'+'.join(genes)!r}: gene {gene!r} is not known to this model; {hint}")
        each = np.stack([member.predict(wanted) for member in self.members])
        delta = each.mean(axis=0)
        spread = each.var(axis=0, ddof=1) if len(each) > 1 else np.zeros_like(delta)
        noise = np.mean([member.noise_of(wanted) ** 2 for member in self.members], axis=0)
        import anndata

        names = ["+".join(genes) for genes in wanted]
        obs = pd.DataFrame(
            {
                "condition": names,
                "in_training": [name in set(self.conditions) for name in names],
                "never_perturbed": ["+".join(g for g in genes if g not in known) for genes in wanted],
            },
            index=pd.Index(names).astype(str),
        )
        X = delta if self.control_mean is None else self.control_mean + delta
        found = anndata.AnnData(X.astype(np.float32), obs=obs, var=pd.DataFrame(index=list(self.measured)))
        found.layers["delta"] = delta.astype(np.float32)
        found.layers["std"] = np.sqrt(spread + noise).astype(np.float32)
        found.obs_names_make_unique()
        found.uns["genecompass_response"] = {
            "X": "effect" if self.control_mean is None else "mean of log1p(count / total * 1e4)",
            "kind": "genes",
            "table": str(self.about.get("table")),
        }
        return found

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write a folder with ``response.json`` and ``response.safetensors``, whole or not at all.

        Examples
        --------
        >>> response.save("my_response")  # doctest: +SKIP
        """
        with atomic_path(folder) as temporary:
            temporary.mkdir()
            mean = None if self.control_mean is None else [float(x) for x in self.control_mean]
            about = {
                "kind": "genes",
                "measured": list(self.measured),
                "conditions": list(self.conditions),
                "control_mean": mean,
                "about": self.about,
            }
            write_members(temporary, self.members, about)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> "ResponseModel":
        """Read what `save` wrote.

        Raises
        ------
        InputError
            No such folder, or it is damaged.

        Examples
        --------
        >>> ResponseModel.load("my_response")  # doctest: +SKIP
        """
        members, content = read_members(Path(folder))
        mean = content["control_mean"]
        return cls(
            members,
            tuple(content["measured"]),
            tuple(content["conditions"]),
            None if mean is None else np.array(mean, dtype=np.float64),
            content["about"],
        )


def fit_response(
    adata: Any,
    *,
    perturbation: str = "perturbation",
    control: str | None = None,
    model: Any = None,
    species: str | None = None,
    processor: Any = None,
    table: GeneFeatures | None = None,
    go: Mapping[str, frozenset[str]] | None = None,
    members: int = 3,
    options: GeneOptions | None = None,
    device: str | None = None,
    seed: int = 0,
    progress: bool = False,
) -> ResponseModel:
    """Learn what perturbing genes does in one data set.

    Parameters
    ----------
    adata
        Cells with raw counts in X, or one effect a row; an AnnData or the path of an h5ad file.
    perturbation
        obs column with ``A`` or ``A+B``.
    control
        Label of control cells; None where X holds effects.
    model, species, processor, device
        A GeneCompass checkpoint whose input table gives genes a meaning, so that those never perturbed have one.
    table
        Any other gene table in its place; without either, a state is learned for each perturbed gene.
    go
        Gene to GO terms, from `read_go`: perturbed genes with common terms speak to each other.
    members
        Networks to average, each with other validation conditions.
    options
        See `GeneOptions`.
    seed
        Of everything that is drawn.
    progress
        Show a bar.

    Returns
    -------
    ResponseModel

    Raises
    ------
    InputError
        See `read_effects`; a model without species; a table without the genes; fewer than four conditions.

    Examples
    --------
    >>> import genecompass as gc
    >>> response = gc.fit_response("cells.h5ad", perturbation="condition", control="ctrl")  # doctest: +SKIP
    >>> response.predict(["KLF1+MAP2K6", "FOXO4"])  # doctest: +SKIP
    """
    if members < 1:
        raise InputError("members must be 1 or more")
    if model is not None and table is not None:
        raise InputError("give a model or a table, not both")
    if model is not None and species is None:
        raise InputError("a model needs the species of the genes; pass species='human' or another")
    adata, where = open_h5ad(adata)
    effects = read_effects(adata, perturbation, control=control, seed=seed, where=where)
    perturbed = all_genes(effects.conditions.genes)
    perturbable = tuple(sorted({*perturbed, *effects.genes}))
    if model is not None:
        table = input_table(model, perturbable, species=str(species), processor=processor, device=device)
    cells = graph_cells(adata, effects, seed=seed) if control is not None else None
    inputs = GeneInputs(effects.genes, perturbable, table, go, cells)
    options = options or GeneOptions()
    bar = Progress(total=members * options.fit.epochs, desc="fitting", disable=not progress)
    fitted = []
    for i in range(members):
        order = np.random.default_rng([seed, i]).permutation(len(effects.delta))
        validation = np.sort(order[: max(1, round(0.1 * len(order)))])
        fitted.append(
            fit_genes(
                effects.delta, effects.conditions.genes, inputs, validation=validation, options=options,
                seed=seed * 1000 + i, progress=bar.update,
            )
        )  # fmt: skip
    bar.close()
    about = {
        "table": None if table is None else table.name,
        "coverage_perturbed": None if table is None else table.coverage(perturbed),
        "coverage_measured": None if table is None else table.coverage(effects.genes),
        "perturbation": perturbation,
        "control": control,
        "seed": seed,
        "cells": int(effects.n_cells.sum()),
    }
    return ResponseModel(fitted, effects.genes, effects.conditions.names, effects.control_mean, about)


def graph_cells(adata: Any, effects: Effects, *, rows: Sequence[int] | None = None, seed: int = 0) -> Matrix:
    """Log-normalised cells of control and of some conditions, a draw of at most 5,000, for co-expression.

    Parameters
    ----------
    adata, effects
        Raw counts, and the effects that were read from them.
    rows
        Conditions that may be read; None for all.
    seed
        Of the draw.

    Examples
    --------
    >>> graph_cells(adata, effects, rows=split.known)  # doctest: +SKIP
    """
    of_row = effects.conditions.of_row
    found = np.arange(len(of_row)) if rows is None else np.flatnonzero((of_row < 0) | np.isin(of_row, list(rows)))
    if len(found) > GRAPH_CELLS:
        found = np.sort(np.random.default_rng(seed).permutation(found)[:GRAPH_CELLS])
    return log_normalised(adata.X[found])
