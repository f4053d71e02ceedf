"""Quality control of cells, as the paper states it, as the published code does it, or by explicit thresholds."""

from dataclasses import dataclass, field, fields

import numpy as np
import numpy.typing as npt
from scipy import sparse

from .errors import InputError
from .gene_table import GeneTable
from .matching import GeneMatch
from .ranking import merge_shared_tokens

CODING_BIOTYPES = ("protein_coding", "miRNA")
# columns of what `measure_cells` returns
TOTAL, GENES, CODING_GENES, MITO_FRACTION = range(4)


@dataclass(frozen=True)
class QualityDecision:
    """Which cells stay, and how many each rule removed.

    Attributes
    ----------
    keep
        bool (cells,).
    removed
        Rule to number of cells; a cell counts for the first rule that removes it.
    removed_by_sample
        Sample to the same, where samples were given.
    """

    keep: npt.NDArray[np.bool_]
    removed: dict[str, int]
    removed_by_sample: dict[str, dict[str, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class QualityControl:
    """Rules for cells, applied in the order of the attributes; None leaves a rule out.

    Attributes
    ----------
    drop_empty
        Remove cells without counts of any known gene.
    min_genes
        Fewest expressed genes (known to the vocabulary).
    min_coding_genes
        Fewest expressed protein-coding or miRNA genes. Left out where the vocabulary has no biotypes.
    max_mito_fraction
        Largest share of counts in mitochondrial genes (symbols that begin with MT-), of all counts.
    genes_sd, counts_sd, mito_sd
        Largest distance of a cell from its sample's mean, in standard deviations (over the cells that passed the
        rules before), of expressed genes, total counts, mitochondrial fraction.
    min_cells
        Fewest cells of a sample that are left after all other rules.

    Examples
    --------
    >>> QualityControl.named("paper").min_genes, QualityControl.named("none").removes_cells
    (200, False)
    """

    name: str = "custom"
    drop_empty: bool = True
    min_genes: int | None = None
    min_coding_genes: int | None = None
    max_mito_fraction: float | None = None
    genes_sd: float | None = None
    counts_sd: float | None = None
    mito_sd: float | None = None
    min_cells: int | None = None

    @classmethod
    def named(cls, name: "str | QualityControl") -> "QualityControl":
        """A preset: ``paper``, ``published_code`` or ``none``; a `QualityControl` passes through."""
        if isinstance(name, QualityControl):
            return name
        if name not in PRESETS:
            raise InputError(
                f"unknown quality control {name!r}; choose one of {', '.join(PRESETS)}, or give thresholds"
            )
        return PRESETS[name]

    @property
    def removes_cells(self) -> bool:
        """Whether any rule is on."""
        return self.drop_empty or any(getattr(self, f.name) is not None for f in fields(self)[2:])

    def decide(
        self,
        measures: npt.NDArray[np.float64],
        samples: npt.NDArray[np.object_] | None = None,
        *,
        has_biotypes: bool = True,
    ) -> QualityDecision:
        """Apply the rules.

        Parameters
        ----------
        measures
            From `measure_cells`. Shape (cells, 4).
        samples
            Sample of each cell; None: all cells are one sample. Shape (cells,).
        has_biotypes
            Whether the vocabulary knows biotypes; without them the rule on coding genes is left out.
        """
        group = np.zeros(len(measures), dtype=np.int64)
        labels = np.array(["all"], dtype=object)
        if samples is not None:
            labels, group = np.unique(np.asarray(samples, dtype=str), return_inverse=True)
        keep = np.ones(len(measures), dtype=bool)
        removed: dict[str, int] = {}
        by_sample: dict[str, dict[str, int]] = {str(label): {} for label in labels} if samples is not None else {}

        def apply(rule: str, bad: npt.NDArray[np.bool_]) -> None:
            lost = keep & bad
            removed[rule] = int(lost.sum())
            for label, number in zip(labels, np.bincount(group[lost], minlength=len(labels)), strict=True):
                if by_sample:
                    by_sample[str(label)][rule] = int(number)
            keep[lost] = False

        if self.drop_empty:
            apply("empty", measures[:, GENES] == 0)
        if self.min_genes is not None:
            apply("min_genes", measures[:, GENES] < self.min_genes)
        if self.min_coding_genes is not None and has_biotypes:
            apply("min_coding_genes", measures[:, CODING_GENES] < self.min_coding_genes)
        if self.max_mito_fraction is not None:
            apply("max_mito_fraction", measures[:, MITO_FRACTION] > self.max_mito_fraction)
        for rule, limit, column in (
            ("genes_sd", self.genes_sd, GENES),
            ("counts_sd", self.counts_sd, TOTAL),
            ("mito_sd", self.mito_sd, MITO_FRACTION),
        ):
            if limit is not None:
                apply(rule, _beyond(measures[:, column], group, keep, limit))
        if self.min_cells is not None:
            apply("min_cells", np.bincount(group[keep], minlength=len(labels))[group] < self.min_cells)
        return QualityDecision(keep, removed, by_sample)


PRESETS = {
    "paper": QualityControl(
        "paper", min_genes=200, min_coding_genes=7, max_mito_fraction=0.15, genes_sd=3.0, min_cells=4
    ),
    "published_code": QualityControl("published_code", min_coding_genes=7, counts_sd=3.0, mito_sd=3.0),
    "none": QualityControl("none", drop_empty=False),
}


def _beyond(
    values: npt.NDArray[np.float64], group: npt.NDArray[np.int64], keep: npt.NDArray[np.bool_], limit: float
) -> npt.NDArray[np.bool_]:
    """Cells farther than `limit` standard deviations from the mean of the kept cells of their sample."""
    number = np.maximum(np.bincount(group[keep], minlength=group.max() + 1), 1)
    mean = np.bincount(group[keep], weights=values[keep], minlength=len(number)) / number
    distance = values - mean[group]
    variance = np.bincount(group[keep], weights=distance[keep] ** 2, minlength=len(number)) / number
    return np.abs(distance) > limit * np.sqrt(variance)[group] * (1 + 1e-12)


def measure_cells(block: sparse.csr_matrix, match: GeneMatch, table: GeneTable) -> npt.NDArray[np.float64]:
    """What the rules look at, per cell.

    Returns
    -------
    float64 array (cells, 4)
        Total of all counts; expressed known genes; expressed protein-coding or miRNA genes among them; share of
        counts in mitochondrial genes.
    """
    own = np.where(match.column_token >= 0, match.column_token, 0)
    coding = np.isin(np.array(table.index.biotypes, dtype=object)[own], CODING_BIOTYPES) & (match.column_token >= 0)
    symbols = np.array([table.index.symbols[t] if t else str(n) for t, n in zip(own, match.names, strict=True)])
    mito = np.char.startswith(np.char.upper(symbols.astype(str)), "MT-")
    merged = merge_shared_tokens(block.indptr, block.indices, block.data, match.cell_token)
    expressed = np.asarray(merged > 0)  # type: ignore[operator]
    row = np.repeat(np.arange(block.shape[0]), np.diff(block.indptr))

    def per_cell(weights: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
        return np.bincount(row, weights=weights, minlength=block.shape[0]).astype(np.float64)

    total = per_cell(block.data)
    known = match.cell_token[block.indices] >= 0
    mito_counts = per_cell(block.data * mito[block.indices])
    return np.column_stack(
        [
            total,
            per_cell(expressed & known),
            per_cell(expressed & coding[block.indices]),
            np.divide(mito_counts, total, out=np.zeros_like(total), where=total > 0),
        ]
    )
