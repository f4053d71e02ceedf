"""Effects of drugs at doses (or times), per patient or cell line where there is one."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from ...tokenization.errors import InputError
from .conditions import number_column, text_column
from .effects import check_counts, log_normalised, open_h5ad

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class DoseEffects:
    """Mean effects by drug, dose and covariate.

    Parameters
    ----------
    drugs, covariates
        Of each condition; ``""`` where there is no covariate.
    doses
        (conditions,) above 0.
    genes
        Names of the measured genes.
    delta
        (conditions, genes).
    n_rows
        (conditions,) cells or wells behind each.
    """

    drugs: tuple[str, ...]
    covariates: tuple[str, ...]
    doses: Matrix
    genes: tuple[str, ...]
    delta: Matrix
    n_rows: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.drugs)

    def take(self, rows: npt.NDArray[np.int64]) -> "DoseEffects":
        """Some of the conditions.

        Examples
        --------
        >>> effects = DoseEffects(("a", "b"), ("", ""), np.ones(2), ("x",), np.eye(2)[:, :1], np.ones(2, int))
        >>> effects.take(np.array([1])).drugs
        ('b',)
        """
        return DoseEffects(
            tuple(self.drugs[i] for i in rows),
            tuple(self.covariates[i] for i in rows),
            self.doses[rows],
            self.genes,
            self.delta[rows],
            self.n_rows[rows],
        )

    @property
    def names(self) -> list[str]:
        """Each condition as text.

        Examples
        --------
        >>> DoseEffects(("a",), ("A549",), np.array([0.5]), ("x",), np.eye(1), np.ones(1, int)).names
        ['a 0.5 A549']
        """
        every = zip(self.drugs, self.doses, self.covariates, strict=True)
        return [f"{drug} {dose:g} {covariate}".rstrip() for drug, dose, covariate in every]


def read_dose_effects(
    adata: Any,
    drug: str,
    *,
    dose: str | None = None,
    covariate: str | None = None,
    control: str | None = None,
    layer: str | None = None,
    values: str = "counts",
    where: str = "cells",
) -> DoseEffects:
    """Effects of a file of cells with control cells, or of a file that holds effects.

    Parameters
    ----------
    adata
        Raw counts with control cells, or effects (z-scores); an AnnData or the path of an h5ad file.
    drug
        obs column of drugs.
    dose
        obs column of doses or times: numbers; rows of dose 0 are control. None: every treated row has dose 1.
    covariate
        obs column of patients or cell lines; each is compared with its own control.
    control
        Label of control rows in `drug`. Without it and without rows of dose 0, the data hold effects.
    layer
        Where effects are; X by default.
    values
        ``"counts"``, or ``"log"`` where X holds log expression already, as of arrays, with control rows.

    Raises
    ------
    InputError
        A column, label or layer that is not there, text among doses, no treated row, a covariate without control
        rows, values that are no counts although there is control.

    Examples
    --------
    >>> import anndata, pandas as pd
    >>> obs = pd.DataFrame({"drug": ["v", "a"], "dose": [0, 1]}, index=["c", "d"])
    >>> read_dose_effects(anndata.AnnData(np.array([[1.0, 1], [3, 1]]), obs=obs), "drug", dose="dose").names
    ['a 1']
    """
    adata, where = open_h5ad(adata, where)
    drugs = np.array(text_column(adata.obs, drug, where=where), dtype=object)
    doses = np.ones(adata.n_obs) if dose is None else number_column(adata.obs, dose, where=where)
    covariates = np.full(adata.n_obs, "", dtype=object)
    if covariate is not None:
        covariates = np.array(text_column(adata.obs, covariate, where=where), dtype=object)
    if layer is not None and layer not in adata.layers:
        raise InputError(f"{where}: no layer {layer!r}; there are {', '.join(adata.layers) or 'none'}")
    if control is not None and control not in set(drugs):
        raise InputError(f"{where}: no row has {control!r} in obs column {drug!r}; give the label of control rows")
    is_control = (doses == 0) | (drugs == control)
    if is_control.all():
        raise InputError(f"{where}: every row is control; there is no effect to learn from")
    X = adata.X if layer is None else adata.layers[layer]
    holds_effects = not is_control.any() or layer is not None
    if values not in ("counts", "log"):
        raise InputError(f"unknown values {values!r}; choose counts or log")
    if holds_effects or values == "log":
        numbers = np.asarray(X.todense() if sparse.issparse(X) else X, dtype=np.float64)
    else:
        check_counts(X, where)
        numbers = log_normalised(X)
    keys = sorted({(drugs[i], covariates[i], float(doses[i])) for i in np.flatnonzero(~is_control)})
    delta, counts = [], []
    for name, group, amount in keys:
        mine = (drugs == name) & (covariates == group) & (doses == amount) & ~is_control
        base = np.zeros(numbers.shape[1])
        if not holds_effects:
            own = is_control & (covariates == group)
            if not own.any():
                raise InputError(f"{where}: {covariate} {group!r} has no control row; leave its cells out")
            base = numbers[own].mean(axis=0)
        delta.append(numbers[mine].mean(axis=0) - base)
        counts.append(int(mine.sum()))
    return DoseEffects(
        tuple(str(key[0]) for key in keys),
        tuple(str(key[1]) for key in keys),
        np.array([key[2] for key in keys]),
        tuple(str(name) for name in adata.var_names),
        np.stack(delta),
        np.array(counts, dtype=np.int64),
    )
