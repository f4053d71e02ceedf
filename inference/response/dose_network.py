"""A network for drugs at doses: each drug moves along its own direction as far as its own dose curve says.

After CPA's idea of a drug vector scaled by a curve of the dose, on mean effects rather than on cells: the curve is a
Hill function, so it rises with the dose, is 0 without any, and has a half-maximal dose that can be read off.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ...tokenization.errors import InputError
from .doses import DoseEffects
from .fit import FitRecord, FitSettings, fit_network, seeded

Matrix = npt.NDArray[np.float64]
SETTINGS = FitSettings(epochs=400, patience=60, batch_size=64, learning_rate=1e-2, weight_decay=1e-4)


class DoseNetwork(nn.Module):
    """Effects of drugs at doses.

    Parameters
    ----------
    n_drugs, n_covariates, n_genes
        How many.
    hidden
        Width of drug vectors.
    centre
        Log dose at which every curve starts out half-maximal.
    """

    def __init__(self, n_drugs: int, n_covariates: int, n_genes: int, *, hidden: int = 32, centre: float = 0.0) -> None:
        super().__init__()
        self.drugs = nn.Parameter(torch.randn(n_drugs, hidden) / hidden**0.5)
        self.covariates = nn.Parameter(torch.zeros(n_covariates, hidden))
        self.log_ec50 = nn.Parameter(torch.full((n_drugs,), centre))
        self.log_slope = nn.Parameter(torch.zeros(n_drugs))
        self.linear = nn.Linear(hidden, n_genes, bias=False)
        last = nn.Linear(hidden, n_genes)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.bent = nn.Sequential(nn.Linear(hidden, hidden), nn.Tanh(), last)

    def curve(self, drug: Tensor, log_dose: Tensor) -> Tensor:
        """(conditions,) share of the full effect, 0 to 1."""
        slope = self.log_slope[drug].clamp(-1.5, 1.5).exp()
        return torch.sigmoid(slope * (log_dose - self.log_ec50[drug]))

    def forward(self, drug: Tensor, covariate: Tensor, log_dose: Tensor) -> Tensor:
        """(conditions, genes) effects; a dose of 0, log dose minus infinity, gives 0."""
        share = self.curve(drug, log_dose)[:, None]
        state = share * (self.drugs[drug] + self.covariates[covariate])
        return self.linear(state) + self.bent(state) - self.bent(torch.zeros_like(state))


@dataclass
class DoseModel:
    """A fitted dose network.

    Parameters
    ----------
    network
        In evaluation mode.
    drugs, covariates
        Names, in the order of the network's rows.
    unit
        What effects are divided by.
    record
        How fitting went.
    """

    network: DoseNetwork
    drugs: tuple[str, ...]
    covariates: tuple[str, ...]
    unit: float
    record: FitRecord

    def predict(self, drugs: Sequence[str], doses: npt.ArrayLike, covariates: Sequence[str] | None = None) -> Matrix:
        """(conditions, genes) effects.

        A covariate never seen counts as the mean of those that were; so does a drug.

        Examples
        --------
        >>> effects = DoseEffects(("a", "a"), ("", ""), np.array([1.0, 2.0]), ("x",), np.ones((2, 1)), np.ones(2, int))
        >>> model = fit_doses(effects, settings=FitSettings(epochs=2))
        >>> model.predict(["a"], [0.0]).tolist()
        [[0.0]]
        """
        groups = [""] * len(drugs) if covariates is None else list(covariates)
        amount = torch.from_numpy(np.asarray(doses, dtype=np.float64)).float()
        known_drug, known_group = list(self.drugs), list(self.covariates)
        found = []
        with torch.no_grad():
            for drug, group, log_dose in zip(drugs, groups, amount.log(), strict=True):
                d = [known_drug.index(drug)] if drug in known_drug else range(len(known_drug))
                c = [known_group.index(group)] if group in known_group else range(len(known_group))
                pairs = torch.tensor([(i, j) for i in d for j in c])
                values = self.network(pairs[:, 0], pairs[:, 1], log_dose.expand(len(pairs)))
                found.append(values.double().mean(dim=0).numpy() * self.unit)
        return np.stack(found)

    def ec50(self, drug: str) -> float:
        """Dose of half the full effect.

        Raises
        ------
        InputError
            A drug that was not in the data.

        Examples
        --------
        >>> effects = DoseEffects(("a", "a"), ("", ""), np.array([1.0, 2.0]), ("x",), np.ones((2, 1)), np.ones(2, int))
        >>> fit_doses(effects, settings=FitSettings(epochs=2)).ec50("a") > 0
        True
        """
        if drug not in self.drugs:
            raise InputError(f"drug {drug!r} was not in the data; there are {', '.join(self.drugs[:5])}")
        return float(self.network.log_ec50[self.drugs.index(drug)].detach().exp())


def fit_doses(
    effects: DoseEffects,
    *,
    validation: npt.NDArray[np.int64] | None = None,
    hidden: int = 32,
    settings: FitSettings = SETTINGS,
    seed: int = 0,
    progress: Callable[[int], object] | None = None,
) -> DoseModel:
    """Fit the dose network.

    Parameters
    ----------
    effects
        Known effects.
    validation
        Rows that stop training; None trains to the end.
    hidden
        Width of drug vectors.
    settings, seed, progress
        As for `fit_network`.

    Examples
    --------
    >>> effects = DoseEffects(("a", "b"), ("", ""), np.array([1.0, 2.0]), ("x",), np.ones((2, 1)), np.ones(2, int))
    >>> fit_doses(effects, settings=FitSettings(epochs=2)).drugs
    ('a', 'b')
    """
    drugs, covariates = tuple(sorted(set(effects.drugs))), tuple(sorted(set(effects.covariates)))
    unit = max(float(np.sqrt(np.mean(effects.delta**2))), 1e-9)
    drug = torch.tensor([drugs.index(name) for name in effects.drugs])
    group = torch.tensor([covariates.index(name) for name in effects.covariates])
    log_dose = torch.from_numpy(np.log(effects.doses)).float()
    goal = torch.from_numpy(effects.delta / unit).float()
    held = np.zeros(0, dtype=np.int64) if validation is None else validation
    rows = np.setdiff1d(np.arange(len(effects)), held)
    with seeded(seed):
        centre = float(log_dose.mean())
        network = DoseNetwork(len(drugs), len(covariates), goal.shape[1], hidden=hidden, centre=centre)

        def error(mine: Tensor) -> Tensor:
            return ((network(drug[mine], group[mine], log_dose[mine]) - goal[mine]) ** 2).mean()

        record = fit_network(
            network,
            len(rows),
            lambda batch: error(torch.from_numpy(rows[batch])),
            settings,
            validation=(lambda: float(error(torch.from_numpy(held)))) if len(held) else None,
            seed=seed,
            progress=progress,
        )
    return DoseModel(network, drugs, covariates, unit, record)
