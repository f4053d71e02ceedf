"""A network from a compound's structure, dose and cell line to its effect on every gene.

Smaller than DeepCE's: a fingerprint through two layers, with embeddings of dose and cell line, meets a vector of each
gene; there is no attention. Gene vectors are learned, or linear in a table.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ...tokenization.errors import InputError
from .doses import DoseEffects
from .fit import FitRecord, FitSettings, fit_network, seeded

Matrix = npt.NDArray[np.float64]
SETTINGS = FitSettings(epochs=100, patience=15, batch_size=32, learning_rate=1e-3, weight_decay=1e-3)


class SignatureNetwork(nn.Module):
    """Effects of compounds.

    Parameters
    ----------
    width
        Of fingerprints.
    n_doses, n_covariates, n_genes
        How many.
    hidden
        Width of the state that meets the genes.
    gene_table
        (genes, width) fixed numbers; None learns a vector for each gene.
    """

    gene_table: Tensor

    def __init__(
        self,
        width: int,
        n_doses: int,
        n_covariates: int,
        n_genes: int,
        *,
        hidden: int = 64,
        gene_table: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.drug = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(0.2), nn.Linear(hidden, hidden))
        self.doses = nn.Embedding(n_doses, 4)
        self.covariates = nn.Embedding(n_covariates, 4)
        self.state = nn.Sequential(nn.Linear(hidden + 8, hidden), nn.ReLU(), nn.Dropout(0.2), nn.Linear(hidden, hidden))
        self.gene_linear: nn.Linear | None = None
        if gene_table is None:
            self.genes = nn.Parameter(torch.zeros(n_genes, hidden))
        else:
            self.register_buffer("gene_table", gene_table.float(), persistent=False)
            self.gene_linear = nn.Linear(gene_table.shape[1], hidden)
            nn.init.zeros_(self.gene_linear.weight)

    def forward(self, bits: Tensor, dose: Tensor, covariate: Tensor) -> Tensor:
        """(signatures, genes) difference from the mean; 0 before any step."""
        state = torch.cat([self.drug(bits), self.doses(dose), self.covariates(covariate)], dim=1)
        genes = self.genes if self.gene_linear is None else self.gene_linear(self.gene_table)
        return self.state(state) @ genes.T


@dataclass
class SignatureModel:
    """A fitted signature network.

    Parameters
    ----------
    network
        In evaluation mode.
    mean
        (genes,) mean effect of training, to which the network's difference is added.
    share
        How much of the difference counts, from validation drugs.
    doses, covariates
        In the order of the network's rows.
    unit
        What differences are divided by.
    record
        How fitting went.
    """

    network: SignatureNetwork
    mean: Matrix
    share: float
    doses: tuple[float, ...]
    covariates: tuple[str, ...]
    unit: float
    record: FitRecord

    def predict(self, bits: Matrix, doses: npt.ArrayLike, covariates: Sequence[str]) -> Matrix:
        """(signatures, genes) effects; a dose that is not known counts as the nearest, a cell line as the first.

        Examples
        --------
        >>> effects = DoseEffects(tuple("abcd"), ("",) * 4, np.ones(4), ("x",), np.eye(4)[:, :1], np.ones(4, int))
        >>> model = fit_signatures(effects, dict(zip("abcd", np.eye(4))), settings=FitSettings(epochs=1))
        >>> model.predict(np.eye(4)[:1], [1.0], [""]).shape
        (1, 1)
        """
        known = np.log(np.array(self.doses))
        rows = [int(np.argmin(np.abs(known - np.log(dose)))) for dose in np.asarray(doses, dtype=np.float64)]
        groups = [self.covariates.index(name) if name in self.covariates else 0 for name in covariates]
        with torch.no_grad():
            out = self.network(torch.from_numpy(bits).float(), torch.tensor(rows), torch.tensor(groups))
        return self.mean + self.share * self.unit * out.double().numpy()


def fit_signatures(
    effects: DoseEffects,
    bits: Mapping[str, Matrix],
    *,
    gene_table: Matrix | None = None,
    hidden: int = 64,
    settings: FitSettings = SETTINGS,
    seed: int = 0,
    progress: Callable[[int], object] | None = None,
) -> SignatureModel:
    """Fit on known signatures; one drug in ten stops training.

    Parameters
    ----------
    effects
        Known signatures.
    bits
        Drug to its fingerprint.
    gene_table
        (genes, width); None learns a vector for each gene.
    hidden
        Width.
    settings, seed, progress
        As for `fit_network`.

    Raises
    ------
    InputError
        A drug without a fingerprint, or fewer than four drugs.

    Examples
    --------
    >>> effects = DoseEffects(tuple("abcd"), ("",) * 4, np.ones(4), ("x",), np.eye(4)[:, :1], np.ones(4, int))
    >>> fit_signatures(effects, dict(zip("abcd", np.eye(4))), settings=FitSettings(epochs=1)).doses
    (1.0,)
    """
    drugs = sorted(set(effects.drugs))
    absent = [drug for drug in drugs if drug not in bits]
    if absent:
        raise InputError(f"drug {absent[0]!r} has no fingerprint; leave out drugs without a structure")
    if len(drugs) < 4:
        raise InputError(f"{len(drugs)} drugs are too few to learn from structures; need 4 or more")
    kept = {drugs[i] for i in np.random.default_rng(seed).permutation(len(drugs))[: max(1, round(0.1 * len(drugs)))]}
    held = np.array([drug in kept for drug in effects.drugs])
    rows, stop = np.flatnonzero(~held), np.flatnonzero(held)
    mean = effects.delta.mean(axis=0)
    left = effects.delta - mean
    unit = max(float(np.sqrt(np.mean(left**2))), 1e-9)
    doses, groups = tuple(sorted(set(effects.doses.tolist()))), tuple(sorted(set(effects.covariates)))
    X = torch.from_numpy(np.stack([bits[drug] for drug in effects.drugs])).float()
    dose = torch.tensor([doses.index(d) for d in effects.doses.tolist()])
    group = torch.tensor([groups.index(c) for c in effects.covariates])
    goal = torch.from_numpy(left / unit).float()
    with seeded(seed):
        network = SignatureNetwork(
            X.shape[1], len(doses), len(groups), goal.shape[1], hidden=hidden,
            gene_table=None if gene_table is None else torch.from_numpy(gene_table),
        )  # fmt: skip

        def error(some: npt.NDArray[np.int64]) -> Tensor:
            mine = torch.from_numpy(some)
            return ((network(X[mine], dose[mine], group[mine]) - goal[mine]) ** 2).mean()

        record = fit_network(
            network, len(rows), lambda batch: error(rows[batch]), settings, validation=lambda: float(error(stop)),
            seed=seed, progress=progress,
        )  # fmt: skip
        with torch.no_grad():
            out = network(X[stop], dose[stop], group[stop])
    size = float((out**2).sum())
    share = float(np.clip(float((out * goal[stop]).sum()) / size, 0.0, 1.0)) if size > 0 else 0.0
    return SignatureModel(network, mean, share, doses, groups, unit, record)
