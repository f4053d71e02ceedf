"""A network for perturbed genes, after GEARS, that predicts what the learned additive model gets wrong.

As in GEARS: states of the measured genes with a hop over co-expression, states of the perturbed genes with a hop over
common GO terms, their sum for every gene, read-outs of each gene's own, and one state across genes. Not as in GEARS:
a gene that was never perturbed gets its meaning from a table or not at all; the prediction is a difference from the
learned additive model and starts at zero; two read-outs scale the sum and the product of the single effects; and the
term for directions is left out, since the gradient of a sign is zero.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from .additive import Additive, fit_additive
from .conditions import all_genes, design
from .graphs import GeneGraph

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Starts:
    """What the learned additive model says of conditions, and what it did not know.

    Parameters
    ----------
    rows
        (samples,) which condition each is.
    base
        (samples, genes) its prediction.
    sums, products
        (samples, genes) sum of the known single effects, and their product for combinations all of whose genes are
        known, else 0.
    seen, new
        (samples, perturbable genes) 1 for genes that were perturbed in its training data, and for those that were not.
    """

    rows: npt.NDArray[np.int64]
    base: Matrix
    sums: Matrix
    products: Matrix
    seen: Matrix
    new: Matrix

    @property
    def has_new(self) -> npt.NDArray[np.bool_]:
        """(samples,) True where some gene is new."""
        return self.new.sum(axis=1) > 0

    def take(self, rows: npt.NDArray[np.int64]) -> "Starts":
        """Some of the samples."""
        return Starts(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


def start_from(model: Additive, genes: Sequence[Sequence[str]], names: Sequence[str]) -> Starts:
    """Starting points of conditions.

    Parameters
    ----------
    model
        The learned additive model.
    genes
        Perturbed genes of each condition.
    names
        Genes that can be perturbed, in the order of the network's columns.

    Examples
    --------
    >>> model = fit_additive(np.array([[1.0], [3.0]]), [("A",), ("B",)])
    >>> start_from(model, [("A", "new")], ["A", "B", "new"]).new.tolist()
    [[0.0, 0.0, 1.0]]
    """
    known = set(model.genes)
    place = {gene: i for i, gene in enumerate(model.genes)}
    mean = model.means.get(1)
    width = model.weights.shape[1]
    sums, products = np.zeros((len(genes), width)), np.zeros((len(genes), width))
    for i, condition in enumerate(genes):
        effects = [model.weights[place[g]] + (0.0 if mean is None else mean) for g in condition if g in known]
        if effects:
            sums[i] = np.sum(effects, axis=0)
        if len(effects) == len(condition) > 1:
            products[i] = np.prod(effects, axis=0)
    X = design(genes, names)
    old = np.array([gene in known for gene in names], dtype=np.float64)
    return Starts(np.arange(len(genes)), model.predict(genes), sums, products, X * old, X * (1 - old))


def held_out_starts(
    delta: Matrix,
    genes: Sequence[Sequence[str]],
    names: Sequence[str],
    *,
    validation: npt.NDArray[np.int64],
    share: float = 0.15,
    n_folds: int = 5,
    seed: int = 0,
) -> tuple[Starts, Starts]:
    """Training and validation samples: each condition as an additive model sees it that was fitted without it.

    Every condition comes twice: with conditions held out in folds, and with genes held out in folds, so that the
    network learns both from what the additive model gets wrong about known genes and from what it cannot know about
    new ones. A share of the genes, and the given conditions, are for validation.

    Parameters
    ----------
    delta, genes
        Known effects and their genes.
    names
        Genes that can be perturbed.
    validation
        Rows for validation among conditions with known genes.
    share
        Of the genes for validation as new ones.
    n_folds, seed
        Of the folds.

    Examples
    --------
    >>> delta, genes = np.arange(6.0)[:, None], [(g,) for g in "ABCDEF"]
    >>> train, held = held_out_starts(delta, genes, list("ABCDEF"), validation=np.array([0]))
    >>> len(train.rows) + len(held.rows)
    12
    """
    generator = np.random.default_rng([seed, 3])
    n = len(genes)
    parts: list[tuple[Starts, bool]] = []

    def add(fit: npt.NDArray[np.int64], rows: npt.NDArray[np.int64], held: bool) -> None:
        if len(rows) and len(fit):
            model = fit_additive(delta[fit], [genes[i] for i in fit], seed=seed)
            starts = start_from(model, [genes[i] for i in rows], names)
            values = {name: getattr(starts, name) for name in starts.__dataclass_fields__} | {"rows": rows}
            parts.append((Starts(**values), held))

    rest = generator.permutation(np.setdiff1d(np.arange(n), validation))
    for fold in [validation, *(rest[k::n_folds] for k in range(n_folds))]:
        add(np.setdiff1d(np.arange(n), fold), np.sort(fold), fold is validation)

    perturbed = all_genes(genes)
    order = generator.permutation(len(perturbed))
    cut = max(1, round(share * len(order)))
    kept = {perturbed[i] for i in order[:cut]}
    gene_folds = [kept, *({perturbed[i] for i in order[cut:][k::n_folds]} for k in range(n_folds))]
    for held in gene_folds:
        hit = np.array([bool(held.intersection(condition)) for condition in genes])
        clean = hit if held is kept else hit & ~np.array([bool(kept.intersection(c)) for c in genes])
        add(np.flatnonzero(~hit), np.flatnonzero(clean), held is kept)

    def join(which: bool) -> Starts:
        mine = [starts for starts, held in parts if held is which]
        return Starts(*(np.concatenate([getattr(s, f) for s in mine]) for f in Starts.__dataclass_fields__))

    return join(False), join(True)


class GeneNetwork(nn.Module):
    """What the additive model gets wrong, by gene.

    Parameters
    ----------
    n_genes, n_perturbable
        Measured genes, and genes that can be perturbed.
    hidden
        Width of states.
    gene_table, perturbed_table
        (genes, width) fixed numbers of the measured and of the perturbable genes; None learns a state for each. Then
        a gene never perturbed has no state.
    co_expression, go
        Graphs over measured and over perturbable genes.
    """

    def __init__(
        self,
        n_genes: int,
        n_perturbable: int,
        *,
        hidden: int = 16,
        gene_table: Tensor | None = None,
        perturbed_table: Tensor | None = None,
        co_expression: GeneGraph | None = None,
        go: GeneGraph | None = None,
    ) -> None:
        super().__init__()
        self.gene_states = _States(n_genes, hidden, gene_table)
        self.neighbour_states = _States(n_genes, hidden, gene_table)
        self.seen_states = _States(n_perturbable, hidden, perturbed_table)
        self.new_states = None if perturbed_table is None else _States(n_perturbable, hidden, perturbed_table)
        self.co_expression = None if co_expression is None else _Hop(co_expression)
        self.go = None if go is None else _Hop(go)
        self.gene_norm = nn.BatchNorm1d(hidden)
        self.gene_mlp = _mlp(hidden, hidden, hidden)
        self.seen_mlp = _mlp(hidden, hidden, hidden)
        self.new_mlp = _mlp(hidden, hidden, hidden)
        self.joint_norm = nn.BatchNorm1d(hidden)
        self.joint_mlp = _mlp(hidden, 2 * hidden, hidden)
        self.own = nn.Parameter(torch.randn(n_genes, hidden) / hidden**0.5)
        self.across = _mlp(n_genes, hidden, hidden)
        # everything below starts at zero: so does the prediction
        self.read_out = nn.Parameter(torch.zeros(n_genes, 1 + 2 * hidden))
        last = nn.Linear(hidden, 2)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.scales = nn.Sequential(nn.Linear(2 * hidden, hidden), nn.ReLU(), last)

    def forward(self, seen: Tensor, new: Tensor, sums: Tensor, products: Tensor) -> tuple[Tensor, Tensor]:
        """Two differences from the additive model, each (samples, genes), to be added, in the units of `sums`.

        The first is what states of genes say, the second scales the sum and the product of the known single effects.
        """
        g = torch.relu(self.gene_norm(self.gene_states()))
        other = self.neighbour_states()
        g = self.gene_mlp(g + 0.2 * (other if self.co_expression is None else self.co_expression(other)))
        s = seen @ self._hop(self.seen_states())
        q = self.seen_mlp(s) * (seen.sum(1, keepdim=True) > 0)
        straight = s
        if self.new_states is not None:
            u = new @ self._hop(self.new_states())
            q = q + self.new_mlp(u) * (new.sum(1, keepdim=True) > 0)
            straight = u
        h = g[None] + q[:, None]
        samples, genes, width = h.shape
        h = torch.relu(self.joint_norm(h.reshape(-1, width)))
        own = (self.joint_mlp(h).reshape(samples, genes, width) * self.own).sum(-1)
        across = self.across(own)
        scale, product = self.scales(torch.cat([s, q], dim=1)).chunk(2, dim=1)
        out = own * self.read_out[:, 0] + torch.cat([across, straight], dim=1) @ self.read_out[:, 1:].T
        return out, scale * sums + product * products

    def _hop(self, states: Tensor) -> Tensor:
        return states if self.go is None else self.go(states)


class _States(nn.Module):
    """A state for each gene: learned, or linear in a fixed table."""

    table: Tensor

    def __init__(self, n: int, hidden: int, table: Tensor | None) -> None:
        super().__init__()
        self.linear: nn.Linear | None = None
        if table is None:
            self.learned = nn.Parameter(torch.randn(n, hidden) / hidden**0.5)
        else:
            self.register_buffer("table", table.float(), persistent=False)
            self.linear = nn.Linear(table.shape[1], hidden, bias=False)

    def forward(self) -> Tensor:
        if self.linear is not None:
            return self.linear(self.table)
        length = self.learned.norm(dim=1, keepdim=True)
        return self.learned / length.clamp_min(1.0)


class _Hop(nn.Module):
    """One hop over a fixed graph."""

    matrix: Tensor

    def __init__(self, graph: GeneGraph) -> None:
        super().__init__()
        self.register_buffer("matrix", torch.from_numpy(graph.dense()).float(), persistent=False)

    def forward(self, states: Tensor) -> Tensor:
        return self.matrix @ states


def _mlp(width: int, middle: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, middle), nn.ReLU(), nn.Linear(middle, out))
