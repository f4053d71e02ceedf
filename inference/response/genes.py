"""Fit the gene network on known effects, and predict: the learned additive model and what is added to it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...tokenization.errors import InputError
from .additive import Additive, fit_additive
from .conditions import all_genes
from .features import GeneFeatures, principal_rows
from .fit import FitRecord, FitSettings, fit_network, seeded
from .gene_network import GeneNetwork, Starts, held_out_starts, start_from
from .graphs import GeneGraph, co_expression_graph, go_graph

Matrix = npt.NDArray[np.float64]
TABLE_WIDTH = 64


@dataclass(frozen=True)
class GeneOptions:
    """How the gene network is built and fitted.

    Parameters
    ----------
    hidden
        Width of states.
    loss
        ``"squared"``: error of the mean effect; ``"published"``: its fourth power, as GEARS.
    residual
        Predict the difference from the learned additive model. Off: from nothing.
    fit
        See `FitSettings`.
    """

    hidden: int = 16
    loss: Literal["squared", "published"] = "squared"
    residual: bool = True
    fit: FitSettings = field(default_factory=FitSettings)

    def __post_init__(self) -> None:
        if self.hidden < 1:
            raise InputError("hidden must be 1 or more")
        if self.loss not in ("squared", "published"):
            raise InputError(f"unknown loss {self.loss!r}; choose squared or published")


@dataclass
class GeneMember:
    """A fitted network with the additive model it starts from.

    Parameters
    ----------
    network
        In evaluation mode.
    additive
        Fitted on all known conditions.
    perturbable
        Genes that the network can take as perturbed.
    unit
        What effects are divided by before they enter.
    shares
        (2, 2) how much of the network's two differences counts where all genes are known, and where some are new:
        fitted on validation conditions, 0 to 1.
    noise
        (2, genes) standard deviation of what is left on held-out conditions, with known and with new genes.
    record
        How fitting went.
    options
        As given.
    """

    network: GeneNetwork
    additive: Additive
    perturbable: tuple[str, ...]
    unit: float
    shares: Matrix
    noise: Matrix
    record: FitRecord
    options: GeneOptions

    def predict(self, genes: Sequence[Sequence[str]]) -> Matrix:
        """(conditions, measured genes) effects."""
        starts = start_from(self.additive, genes, self.perturbable)
        base = starts.base if self.options.residual else np.zeros_like(starts.base)
        return base + _shared(_differences(self.network, starts, self.unit), self.shares, starts.has_new)

    def noise_of(self, genes: Sequence[Sequence[str]]) -> Matrix:
        """(conditions, measured genes) standard deviation of held-out conditions like these."""
        known = set(self.additive.genes)
        return np.stack([self.noise[int(any(gene not in known for gene in condition))] for condition in genes])


@dataclass(frozen=True)
class GeneInputs:
    """What a fit reads beside effects: names, a table, annotations, control and training cells.

    Parameters
    ----------
    measured
        Names of the measured genes.
    perturbable
        Genes that can be perturbed: those that are, and those that may be asked for.
    features
        Gene table; None learns a state for each gene.
    go
        Gene to GO terms, for the graph over perturbed genes.
    cells
        (cells, genes) log-normalised cells for the co-expression graph; None takes the known effects.
    """

    measured: tuple[str, ...]
    perturbable: tuple[str, ...]
    features: GeneFeatures | None = None
    go: Mapping[str, frozenset[str]] | None = None
    cells: Matrix | None = None


def fit_genes(
    delta: Matrix,
    genes: Sequence[Sequence[str]],
    inputs: GeneInputs,
    *,
    validation: npt.NDArray[np.int64],
    options: GeneOptions | None = None,
    seed: int = 0,
    progress: Callable[[int], object] | None = None,
) -> GeneMember:
    """Fit one network on known effects.

    Parameters
    ----------
    delta, genes
        Known effects and their perturbed genes; nothing else is ever read.
    inputs
        See `GeneInputs`.
    validation
        Rows that stop training.
    options
        See `GeneOptions`.
    seed
        Of first weights, folds and order.
    progress
        Called with 1 after every epoch.

    Raises
    ------
    InputError
        Fewer than four known conditions.

    Examples
    --------
    >>> delta, genes = np.arange(12.0).reshape(6, 2), [(g,) for g in "ABCDEF"]
    >>> inputs = GeneInputs(("x", "y"), tuple("ABCDEF"))
    >>> member = fit_genes(delta, genes, inputs, validation=np.array([0]), options=GeneOptions(4))
    >>> member.predict([("A",)]).shape
    (1, 2)
    """
    options = options or GeneOptions()
    if len(delta) < 4:
        raise InputError(f"{len(delta)} conditions are too few to learn responses from; need 4 or more")
    train, held = held_out_starts(delta, genes, inputs.perturbable, validation=validation, seed=seed)
    additive = fit_additive(delta, genes, seed=seed)
    base = [starts.base if options.residual else np.zeros_like(starts.base) for starts in (train, held)]
    left = [delta[starts.rows] - b for starts, b in zip((train, held), base, strict=True)]
    unit = max(float(np.sqrt(np.mean(left[0] ** 2))), 1e-9)
    with seeded(seed):
        network = build(inputs, options, delta)
        batches = [_tensors(starts, unit) for starts in (train, held)]
        goals = [torch.from_numpy(y / unit).float() for y in left]
        power = 2 if options.loss == "squared" else 4

        def loss(rows: npt.NDArray[np.int64]) -> Tensor:
            mine = torch.from_numpy(rows)
            states, scaled = network(*(x[mine] for x in batches[0]))
            goal = goals[0][mine]
            # what scaling can explain is left to it: it has few parameters and carries over to other pairs
            both, alone = (states + scaled - goal).abs() ** power, (scaled - goal).abs() ** power
            return (both.mean() + alone.mean()) / 2

        def stop() -> float:
            out = [part.double().numpy() for part in network(*batches[1])]
            goal = left[1] / unit
            return float(np.mean((_shared(out, _fit_shares(out, goal, held.has_new), held.has_new) - goal) ** 2))

        record = fit_network(
            network, len(train.rows), loss, options.fit, validation=stop if len(held.rows) else None, seed=seed,
            progress=progress,
        )  # fmt: skip
    out = _differences(network, held, unit)
    shares = _fit_shares(out, left[1], held.has_new)
    rest = left[1] - _shared(out, shares, held.has_new)
    gain = np.sqrt(np.mean(rest**2) / max(float(np.mean(left[1] ** 2)), 1e-12))
    every = np.concatenate(left)
    new = np.concatenate([train.has_new, held.has_new])
    noise = np.stack([_spread(every, ~new), _spread(every, new)]) * min(float(gain), 1.0)
    return GeneMember(network, additive, inputs.perturbable, unit, shares, noise, record, options)


def build(inputs: GeneInputs, options: GeneOptions, delta: Matrix) -> GeneNetwork:
    """The network with its tables and graphs, before any step.

    Examples
    --------
    >>> inputs = GeneInputs(("x", "y"), ("A",))
    >>> sum(p.numel() for p in build(inputs, GeneOptions(2), np.eye(2)).parameters()) > 0
    True
    """
    measured, perturbed = tables_of(inputs)
    cells = inputs.cells if inputs.cells is not None else delta
    co_expression = co_expression_graph(cells) if len(cells) > 3 else None
    go = None if inputs.go is None else go_graph(inputs.go, inputs.perturbable)
    return network_of(inputs, options, measured, perturbed, co_expression, go)


def network_of(
    inputs: GeneInputs,
    options: GeneOptions,
    measured: Tensor | None,
    perturbed: Tensor | None,
    co_expression: GeneGraph | None,
    go: GeneGraph | None,
) -> GeneNetwork:
    """A network from its parts.

    Examples
    --------
    >>> network_of(GeneInputs(("x",), ("A",)), GeneOptions(2), None, None, None, None).go is None
    True
    """
    return GeneNetwork(
        len(inputs.measured),
        len(inputs.perturbable),
        hidden=options.hidden,
        gene_table=measured,
        perturbed_table=perturbed,
        co_expression=co_expression,
        go=go,
    )


def tables_of(inputs: GeneInputs) -> tuple[Tensor | None, Tensor | None]:
    """Rows of the table for measured and for perturbable genes, at most 64 axes of it; None without a table.

    Examples
    --------
    >>> tables_of(GeneInputs(("x",), ("A",), GeneFeatures("t", ("A", "x"), np.eye(2))))[0].shape
    torch.Size([1, 2])
    """
    if inputs.features is None:
        return None, None
    wanted = all_genes([inputs.measured, inputs.perturbable])
    mine = inputs.features.restricted(wanted)
    if len(mine.genes) < 2:
        raise InputError(
            f"gene table {inputs.features.name!r}: it has {len(mine.genes)} of {len(wanted)} genes; "
            "are names and species the same as in the cells?"
        )
    if mine.table.shape[1] > TABLE_WIDTH:
        mine = GeneFeatures(mine.name, mine.genes, principal_rows(mine.table, TABLE_WIDTH))
    width = mine.table.shape[1] ** 0.5
    rows = [torch.from_numpy(mine.rows(names) / width).float() for names in (inputs.measured, inputs.perturbable)]
    return rows[0], rows[1]


def _tensors(starts: Starts, unit: float) -> list[Tensor]:
    parts = (starts.seen, starts.new, starts.sums / unit, starts.products / unit**2)
    return [torch.from_numpy(np.ascontiguousarray(part)).float() for part in parts]


def _differences(network: GeneNetwork, starts: Starts, unit: float, batch: int = 64) -> list[Matrix]:
    """Both differences that the network gives, each (samples, genes)."""
    network.eval()
    found: list[list[Matrix]] = [[np.zeros((0, starts.base.shape[1]))], [np.zeros((0, starts.base.shape[1]))]]
    with torch.no_grad():
        for i in range(0, len(starts.rows), batch):
            rows = np.arange(i, min(i + batch, len(starts.rows)))
            for kept, part in zip(found, network(*_tensors(starts.take(rows), unit)), strict=True):
                kept.append(part.double().numpy() * unit)
    return [np.concatenate(parts) for parts in found]


def _shared(parts: Sequence[Matrix], shares: Matrix, new: npt.NDArray[np.bool_]) -> Matrix:
    mine = shares[new.astype(np.int64)]
    return mine[:, :1] * parts[0] + mine[:, 1:] * parts[1]


def _fit_shares(parts: Sequence[Matrix], left: Matrix, new: npt.NDArray[np.bool_]) -> Matrix:
    """(2, 2) factors from 0 to 1 that leave the smallest squared error; 0 where there is nothing to tell by."""
    shares = np.zeros((2, 2))
    for k, rows in enumerate((~new, new)):
        X = np.column_stack([part[rows].ravel() for part in parts])
        gram, goal = X.T @ X, X.T @ left[rows].ravel()
        candidates = [np.zeros(2)]
        for free in ([0], [1], [0, 1]):
            found = np.zeros(2)
            found[free] = np.linalg.lstsq(gram[np.ix_(free, free)], goal[free], rcond=None)[0]
            candidates.append(np.clip(found, 0.0, 1.0))
        shares[k] = min(candidates, key=lambda c: float(c @ gram @ c - 2 * c @ goal))
    return shares


def _spread(left: Matrix, rows: npt.NDArray[np.bool_]) -> Matrix:
    return np.sqrt(np.mean((left[rows] if rows.any() else left) ** 2, axis=0))
