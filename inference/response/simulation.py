"""Cells whose responses are known: planted gene tables, pairs that interact, dose curves; truth comes along."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ...tokenization.errors import InputError
from .features import GeneFeatures

Matrix = npt.NDArray[np.float64]
CONTROL = "control"


@dataclass(frozen=True)
class SimulationOptions:
    """What is simulated.

    Parameters
    ----------
    genes, regulators
        Measured genes, and how many of them can be perturbed.
    width
        Of the planted table.
    rho
        Correlation of a regulator's effect with what the planted table says of it: what an oracle reaches on genes
        never perturbed.
    pairs
        How many pairs of regulators are perturbed together.
    interacting
        Share of regulators in the planted class; pairs within it interact.
    interaction
        Weight of the product of effects in such a pair.
    effect
        Standard deviation of log fold changes; 0 for no effect at all.
    cells, control_cells
        Of each condition, and of control.
    molecules
        Median library size.
    dispersion
        Of the gamma-Poisson counts.
    seed
        Of everything.
    """

    genes: int = 200
    regulators: int = 60
    width: int = 4
    rho: float = 0.7
    pairs: int = 120
    interacting: float = 0.45
    interaction: float = 1.0
    effect: float = 0.5
    cells: int = 60
    control_cells: int = 300
    molecules: float = 5000.0
    dispersion: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        if not 2 <= self.regulators <= self.genes:
            raise InputError("simulation: regulators must be 2 or more and at most genes")
        if not 0 <= self.rho <= 1 or self.effect < 0:
            raise InputError("simulation: rho lies between 0 and 1, and effect is not negative")
        if self.pairs > self.regulators * (self.regulators - 1) // 2:
            raise InputError(f"simulation: {self.regulators} regulators do not make {self.pairs} pairs")


@dataclass(frozen=True)
class Simulation:
    """Simulated cells and what is true of them.

    Parameters
    ----------
    adata
        Raw counts; obs ``condition`` (``control``, ``A``, ``A+B``) or ``drug`` and ``dose``.
    truth
        Condition to (genes,): its log fold change, before efficiency and escape.
    table
        The planted table of the regulators; its last column is the planted class.
    planted
        Pairs that interact.
    ec50
        Drug to its half-maximal dose.
    """

    adata: Any
    truth: dict[str, Matrix]
    table: GeneFeatures
    planted: frozenset[str] = frozenset()
    ec50: dict[str, float] | None = None


def simulate_genes(options: SimulationOptions | None = None) -> Simulation:
    """Cells with single regulators and pairs perturbed, and control cells.

    The effect of regulator i is ``rho * A e_i + sqrt(1 - rho^2) * noise``, e_i its row of the planted table and A
    sparse, both parts of unit variance. A pair has the sum of its singles, plus `interaction` times their product
    over `effect` where both are of the planted class. Cells are knocked down to 70 to 95 %, and one in ten escapes.

    Parameters
    ----------
    options
        See `SimulationOptions`.

    Returns
    -------
    Simulation
        With ``adata.obs["condition"]`` and ``adata.var_names`` ``G0``, ...; regulators are the first genes.

    Examples
    --------
    >>> found = simulate_genes(SimulationOptions(genes=20, regulators=4, pairs=2, cells=5, control_cells=9))
    >>> found.adata.shape, len(found.truth)
    ((39, 20), 6)
    """
    o = options or SimulationOptions()
    generator = np.random.default_rng(o.seed)
    names = [f"G{i}" for i in range(o.genes)]
    regulators = names[: o.regulators]
    table = generator.standard_normal((o.regulators, o.width))
    member = np.zeros(o.regulators)
    member[generator.permutation(o.regulators)[: round(o.regulators * o.interacting)]] = 1.0
    A = generator.standard_normal((o.genes, o.width)) * (generator.random((o.genes, o.width)) < 0.5)
    told = table @ A.T
    told /= max(float(told.std()), 1e-12)
    noise = generator.standard_normal(told.shape)
    single = o.effect * (o.rho * told + np.sqrt(1 - o.rho**2) * noise)

    truth = {name: single[i] for i, name in enumerate(regulators)}
    planted = set()
    every = [(i, j) for i in range(o.regulators) for j in range(i)]
    for k in sorted(generator.permutation(len(every))[: o.pairs].tolist()):
        i, j = every[k]
        label = "+".join(sorted((names[i], names[j])))
        truth[label] = single[i] + single[j]
        if member[i] and member[j]:
            planted.add(label)
            truth[label] = truth[label] + o.interaction * single[i] * single[j] / max(o.effect, 1e-12)

    labels = [CONTROL] * o.control_cells + [name for name in truth for _ in range(o.cells)]
    shift = {**truth, CONTROL: np.zeros(o.genes)}
    strength = np.where(generator.random(len(labels)) < 0.1, 0.0, generator.uniform(0.7, 0.95, len(labels)))
    folds = np.stack([shift[label] for label in labels]) * strength[:, None]
    counts = _counts(folds, o, generator)
    features = GeneFeatures("planted", tuple(regulators), np.column_stack([table, member]))
    return Simulation(_adata(counts, names, {"condition": labels}), truth, features, frozenset(planted))


def simulate_doses(
    options: SimulationOptions | None = None,
    *,
    drugs: int = 6,
    doses: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0),
) -> Simulation:
    """Cells of several drugs at several doses: each drug's effect grows along a Hill curve of its own.

    Parameters
    ----------
    options
        Of genes and cells.
    drugs
        How many.
    doses
        Above 0; control cells have dose 0 and drug ``control``.

    Returns
    -------
    Simulation
        ``adata.obs`` with ``drug`` and ``dose``; `truth` by drug at full effect; `ec50` by drug.

    Examples
    --------
    >>> found = simulate_doses(SimulationOptions(genes=9, regulators=2, pairs=0, cells=4, control_cells=5), drugs=2)
    >>> found.adata.n_obs, sorted(found.ec50)
    (61, ['D0', 'D1'])
    """
    o = options or SimulationOptions()
    generator = np.random.default_rng(o.seed)
    names = [f"G{i}" for i in range(o.genes)]
    truth = {f"D{i}": 2 * o.effect * generator.standard_normal(o.genes) for i in range(drugs)}
    low, high = np.log(doses[0]), np.log(doses[-1])
    ec50 = {
        name: float(np.exp(generator.uniform(0.75 * low + 0.25 * high, 0.25 * low + 0.75 * high))) for name in truth
    }
    slope = {name: float(generator.uniform(1.0, 2.0)) for name in truth}
    rows = [(name, dose) for name in truth for dose in doses for _ in range(o.cells)]
    labels = [CONTROL] * o.control_cells + [name for name, _ in rows]
    given = np.array([0.0] * o.control_cells + [dose for _, dose in rows])
    folds = np.zeros((len(labels), o.genes))
    for i, (name, dose) in enumerate(zip(labels, given, strict=True)):
        if name != CONTROL:
            folds[i] = truth[name] * dose ** slope[name] / (dose ** slope[name] + ec50[name] ** slope[name])
    counts = _counts(folds, o, generator)
    features = GeneFeatures("none", (), np.zeros((0, 1)))
    return Simulation(_adata(counts, names, {"drug": labels, "dose": given}), truth, features, ec50=ec50)


def _counts(folds: Matrix, o: SimulationOptions, generator: np.random.Generator) -> npt.NDArray[np.float32]:
    """Gamma-Poisson counts around a mean of two states, times fold changes, for library sizes that differ."""
    base = generator.normal(0.0, 1.0, o.genes)
    second = generator.normal(0.0, 1.0, o.genes) * (generator.random(o.genes) < 0.3)
    state = generator.random(len(folds)) < 0.4
    mean = np.exp(base + state[:, None] * second + folds)
    # sizes are of control cells: a strong effect must not change what everything else is divided by
    control = np.exp(base).sum()
    library = generator.lognormal(np.log(o.molecules), 0.3, len(folds))
    rate = mean / control * library[:, None]
    shape = 1.0 / o.dispersion
    return generator.poisson(generator.gamma(shape, rate / shape)).astype(np.float32)


def _adata(counts: Any, genes: list[str], obs: dict[str, Any]) -> Any:
    import anndata

    frame = pd.DataFrame(obs, index=[f"cell{i}" for i in range(len(counts))])
    return anndata.AnnData(counts, obs=frame, var=pd.DataFrame(index=genes))
