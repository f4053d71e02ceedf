"""Pearson correlation of genes over the cells that express both, exactly, block by block."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp
import torch

from .cell_spool import CellSpool, dense_piece

_GENES_A_BLOCK = 1024
# a float32 estimate this near the threshold is computed again in float64
_BAND = 1e-3
# below this part of the mean square, a joint variance has lost too many float32 digits
_ILL_CONDITIONED = 1e-3
_HALVINGS = 10
# where fewer entries than this are expressed, sparse products beat dense ones
_SPARSE = 0.05


@dataclass(frozen=True)
class CorrelationSettings:
    """Which pairs count as co-expressed.

    Parameters
    ----------
    threshold
        Smallest r.
    min_shared
        Fewest cells that express both genes.
    stability
        Smallest r in every half of ten random halvings of the cells; None asks for none. Counts of molecules are
        mostly 1, so a few cells in which two rare genes are both high carry r over 60 cells, and among millions of
        pairs some always do: of the pairs that half of the cells of a blood data set (2,700 cells) show, one in
        seven has r > 0.5 in the other half. Asking for 0.5 keeps pairs of which 99 in 100 do (23 small data sets),
        but two thirds of the human genes lose their vector and held-out pairs are recovered no better: so the
        default is the published definition.
    device
        Where the matrix products run: ``cpu`` or ``cuda``.
    """

    threshold: float = 0.8
    min_shared: int = 50
    stability: float | None = None
    device: str = "cpu"


def correlated_pairs(
    spool: CellSpool,
    settings: CorrelationSettings | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """All gene pairs of a data set with r at or above the threshold; if asked, in random halves of the cells too.

    Sums over joint cells are matrix products of values and of 0/1, taken block by block of genes and chunk by
    chunk of cells: time is linear in cells, memory is that of a few blocks. Genes are taken in order of frequency,
    so that blocks of rare genes are sparse, and often share too few cells to go on. Sums run in float32 on shifted and
    scaled values; where r comes near the threshold or the joint variance is tiny, the pair is computed again in
    float64, so that the result depends on neither block sizes, threads nor device.

    Parameters
    ----------
    spool
        The cells.
    settings
        Threshold and floor.
    progress
        Called with (block pairs done, block pairs in all).

    Returns
    -------
    DataFrame
        ``left`` < ``right`` (own tokens), ``shared`` (cells), ``r`` (float32); sorted by tokens.

    Examples
    --------
    >>> import scipy.sparse as sp
    >>> counts = np.random.default_rng(0).poisson(5, (100, 1)) + 1
    >>> with CellSpool(np.array([2, 3]), transform="counts") as spool:
    ...     spool.add(sp.csr_matrix(np.hstack([counts, 2 * counts])))
    ...     correlated_pairs(spool)[["left", "right", "shared"]].to_numpy().tolist()
    [[2, 3, 100]]
    """
    settings = settings or CorrelationSettings()
    often = np.flatnonzero(spool.expressed >= settings.min_shared)
    keep = often[np.argsort(-spool.expressed[often], kind="stable")]
    spool.split_genes(keep, _GENES_A_BLOCK)
    tokens = spool.genes[keep]

    found = []
    blocks = [(i, j) for i in range(spool.n_blocks) for j in range(i, spool.n_blocks)]
    for done, (i, j) in enumerate(blocks):
        if progress is not None:
            progress(done, len(blocks))
        first, second, shared, r = _pairs_of_blocks(spool, i, j, settings)
        a, b = tokens[i * _GENES_A_BLOCK + first], tokens[j * _GENES_A_BLOCK + second]
        found.append(pd.DataFrame({"left": np.minimum(a, b), "right": np.maximum(a, b), "shared": shared, "r": r}))
    if progress is not None:
        progress(len(blocks), len(blocks))
    columns = {"left": np.int64, "right": np.int64, "shared": np.int64, "r": np.float32}
    pairs = pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=list(columns))
    return pairs.astype(columns).sort_values(["left", "right"], ignore_index=True)


def _pairs_of_blocks(
    spool: CellSpool, i: int, j: int, settings: CorrelationSettings
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Pairs of one block of genes with another: places in the blocks, shared cells, r."""
    shared = _summed(_shared_cells, spool, i, j, settings.device)
    if not (shared >= settings.min_shared).any():
        nothing = np.zeros(0, dtype=np.int64)
        return nothing, nothing, nothing, np.zeros(0, dtype=np.float32)
    sums = torch.cat([shared, _summed(_moments, spool, i, j, settings.device)])
    enough = sums[0] >= settings.min_shared
    if i == j:
        enough &= torch.ones_like(enough).triu(diagonal=1)
    first, second = (place.cpu().numpy() for place in torch.nonzero(enough, as_tuple=True))
    n, x, y, xx, yy, xy = (part[enough].cpu().numpy() for part in sums)

    var_x, var_y = n * xx - x**2, n * yy - y**2
    with np.errstate(divide="ignore", invalid="ignore"):
        r = (n * xy - x * y) / np.sqrt(var_x * var_y)
        shaky = (var_x < _ILL_CONDITIONED * n * xx) | (var_y < _ILL_CONDITIONED * n * yy)
    # sums of whole numbers are exact as long as float32 holds them: a zero variance is then a zero variance
    if spool.transform == "counts":
        exact = (np.maximum(xx, yy) < 2**24) & (np.abs(xy) < 2**24)
        shaky &= ~exact
    again = np.flatnonzero(shaky | (np.abs(r - settings.threshold) < _BAND))
    r[again] = _exact_r(spool, i, j, first[again], second[again])
    good = np.isfinite(r) & (r >= settings.threshold)
    if settings.stability is not None and good.any():
        chosen = np.flatnonzero(good)
        good[chosen] = _least_r_of_halves(spool, i, j, first[chosen], second[chosen]) >= settings.stability
    return first[good], second[good], n[good].astype(np.int64), r[good].astype(np.float32)


_Sums = Callable[[sp.csr_matrix, sp.csr_matrix, str], torch.Tensor]


def _summed(sums: _Sums, spool: CellSpool, i: int, j: int, device: str) -> torch.Tensor:
    """Sums over all cells in float64: those of each chunk are in float32. Shape (sums, genes i, genes j)."""
    chunks = (sums(spool.piece(chunk, i), spool.piece(chunk, j), device).double() for chunk in range(spool.n_chunks))
    total = next(chunks)
    for more in chunks:
        total += more
    return total


def _shared_cells(first: sp.csr_matrix, second: sp.csr_matrix, device: str) -> torch.Tensor:
    """Cells of a chunk that express both genes. Shape (1, genes, genes)."""
    _, has_x = dense_piece(first, np.float32)
    if _is_sparse(second, device):
        return torch.from_numpy(_by_gene(second, 0) @ has_x).T[None]
    _, has_y = dense_piece(second, np.float32)
    return (torch.from_numpy(has_x).to(device).T @ torch.from_numpy(has_y).to(device))[None]


def _moments(first: sp.csr_matrix, second: sp.csr_matrix, device: str) -> torch.Tensor:
    """Over the cells of a chunk that express both: sums of x, y, x^2, y^2, xy. Shape (5, genes, genes)."""
    x, has_x = dense_piece(first, np.float32)
    if _is_sparse(second, device):
        of_x = np.split(_by_gene(second, 0) @ np.hstack([x, x * x]), 2, axis=1)
        of_y = np.split(_by_gene(second, 1) @ np.hstack([has_x, x]), 2, axis=1)
        found = np.stack([of_x[0], of_y[0], of_x[1], _by_gene(second, 2) @ has_x, of_y[1]])
        return torch.from_numpy(found).transpose(1, 2)
    y, has_y = (torch.from_numpy(part).to(device) for part in dense_piece(second, np.float32))
    xt, has_xt = (torch.from_numpy(part).to(device).T for part in (x, has_x))
    return torch.stack([xt @ has_y, has_xt @ y, (xt * xt) @ has_y, has_xt @ (y * y), xt @ y])


def _is_sparse(piece: sp.csr_matrix, device: str) -> bool:
    return device == "cpu" and piece.nnz < _SPARSE * piece.shape[0] * piece.shape[1]


def _by_gene(piece: sp.csr_matrix, power: int) -> sp.csr_matrix:
    """Genes x cells in float32: values to a power; to the power 0, 1 wherever a gene is expressed."""
    turned = piece.T.tocsr()
    turned.data = (turned.data**power).astype(np.float32)
    return turned


def _exact_r(
    spool: CellSpool, i: int, j: int, first: npt.NDArray[np.int64], second: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Two-pass Pearson r of chosen pairs in float64; NaN where a gene does not vary over the joint cells."""
    result = np.empty(len(first))
    for place, (_, x, y) in enumerate(_joint_values(spool, i, j, first, second)):
        x, y = x - x.mean(), y - y.mean()
        spread = np.sqrt((x @ x) * (y @ y))
        result[place] = (x @ y) / spread if spread > 1e-10 * len(x) else np.nan
    return result


def _least_r_of_halves(
    spool: CellSpool, i: int, j: int, first: npt.NDArray[np.int64], second: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Smallest r of chosen pairs over the halves of all halvings; 0 where a gene does not vary in one of them."""
    inside = np.random.default_rng(_HALVINGS).random((_HALVINGS, spool.n_cells)) < 0.5
    halves = np.concatenate([inside, ~inside]).astype(np.float64)
    result = np.empty(len(first))
    for place, (cells, x, y) in enumerate(_joint_values(spool, i, j, first, second)):
        x, y = x - x.mean(), y - y.mean()
        terms = np.stack([np.ones(len(x)), x, y, x * x, y * y, x * y])
        # not through BLAS, whose threads could change last bits
        n, sx, sy, sxx, syy, sxy = np.einsum("hc,tc->th", halves[:, cells], terms)
        spread = (n * sxx - sx**2) * (n * syy - sy**2)
        varies = spread > 1e-9 * n**2 * sxx * syy
        r = np.where(varies, (n * sxy - sx * sy) / np.sqrt(np.where(varies, spread, 1.0)), 0.0)
        result[place] = r.min()
    return result


def _joint_values(
    spool: CellSpool, i: int, j: int, first: npt.NDArray[np.int64], second: npt.NDArray[np.int64]
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], npt.NDArray[np.float64]]]:
    """For each chosen pair the cells that express both genes, and the values of either there."""
    if not len(first):
        return
    left = [spool.piece(chunk, i) for chunk in range(spool.n_chunks)]
    right = left if i == j else [spool.piece(chunk, j) for chunk in range(spool.n_chunks)]
    columns = [_columns(parts, np.unique(places)) for parts, places in ((left, first), (right, second))]
    for a, b in zip(first, second, strict=True):
        (cells_a, values_a), (cells_b, values_b) = columns[0][a], columns[1][b]
        cells, in_a, in_b = np.intersect1d(cells_a, cells_b, assume_unique=True, return_indices=True)
        yield cells, values_a[in_a], values_b[in_b]


def _columns(
    parts: list, wanted: npt.NDArray[np.int64]
) -> dict[int, tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]]:
    """Cells and values of chosen genes of a block, over all chunks."""
    cells: dict[int, list[npt.NDArray[np.int64]]] = {int(gene): [] for gene in wanted}
    values: dict[int, list[npt.NDArray[np.float64]]] = {int(gene): [] for gene in wanted}
    start = 0
    for part in parts:
        by_gene = part.tocsc()
        for gene in wanted:
            span = slice(by_gene.indptr[gene], by_gene.indptr[gene + 1])
            cells[int(gene)].append(by_gene.indices[span].astype(np.int64) + start)
            values[int(gene)].append(by_gene.data[span])
        start += part.shape[0]
    return {gene: (np.concatenate(cells[gene]), np.concatenate(values[gene])) for gene in cells}
