"""Networks from what the model makes of cells: gene embeddings, attention, deletions."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import stats

from ...tokenization.errors import InputError
from ...tokenization.progress import Progress
from ..perturbation.cells import PerturbedCells
from ..perturbation.edits import Edit
from ..perturbation.forward import CopyReader, Row
from ..perturbation.plan import Plan
from ..perturbation.screen import Screen

Matrix = npt.NDArray[np.float64]


def _rows(cells: PerturbedCells) -> list[Row]:
    editor = cells.editor(Edit("delete"))
    return [editor.original(*cells.cell(index)) for index in range(len(cells))]


def gene_embeddings(reader: CopyReader, cells: PerturbedCells, columns: Sequence[int]) -> tuple[Matrix, Matrix]:
    """Contextual embedding of each gene, averaged by gene over the cells that express it.

    Parameters
    ----------
    columns
        Genes wanted.

    Returns
    -------
    embeddings
        (genes, hidden); NaN for a gene that no cell shows to the model.
    n_cells
        Cells behind each, (genes,).
    """
    tokens = cells.match.cell_token[list(columns)].astype(np.int64)
    place = torch.full((int(reader.base.config.vocab_size),), -1, dtype=torch.long, device=reader.device)
    place[torch.as_tensor(tokens, device=reader.device)] = torch.arange(len(tokens), device=reader.device)
    total = torch.zeros(len(tokens), int(reader.base.config.hidden_size), dtype=torch.float64, device=reader.device)
    count = torch.zeros(len(tokens), dtype=torch.float64, device=reader.device)
    for states in reader.read(_rows(cells), species=cells.match.species_index, genes=True):
        assert states.genes is not None
        gene = place[states.input_ids]
        wanted = gene >= 0
        total.index_add_(0, gene[wanted], states.genes[wanted].double())
        count.index_add_(0, gene[wanted], torch.ones(int(wanted.sum()), dtype=torch.float64, device=reader.device))
    mean = total / torch.where(count > 0, count, torch.nan).unsqueeze(-1)
    return mean.cpu().numpy(), count.cpu().numpy()


def cosine_scores(
    embeddings: npt.ArrayLike, regulators: Sequence[int], targets: Sequence[int], *, centre: bool = False
) -> Matrix:
    """Cosine of every regulator's embedding with every target's; NaN where one is missing.

    Parameters
    ----------
    embeddings
        (genes, hidden).
    regulators, targets
        Rows of `embeddings`.
    centre
        Take the mean over genes off first. Contextual embeddings share a direction that says nothing about any
        one gene; the published networks leave it in.

    Examples
    --------
    >>> cosine_scores([[1.0, 0.0], [1.0, 1.0], [-1.0, 0.0]], [0], [1, 2]).round(3).tolist()
    [[0.707, -1.0]]
    """
    X = np.asarray(embeddings, dtype=np.float64)
    if centre:
        X = X - np.nanmean(X, axis=0)
    length = np.linalg.norm(X, axis=1, keepdims=True)
    X = np.divide(X, length, out=np.full_like(X, np.nan), where=length > 0)
    return X[list(regulators)] @ X[list(targets)].T


# with fewer regulators a target's mean and spread over them mean nothing
_REGULATORS_TO_STANDARDISE = 5


def similarity_scores(
    embeddings: npt.ArrayLike, regulators: Sequence[int], targets: Sequence[int], *, standardise: bool = True
) -> Matrix:
    """Similarity of every regulator to every target, from 0 to 1; no direction is in it but who is called regulator.

    Parameters
    ----------
    embeddings, regulators, targets
        As for `cosine_scores`.
    standardise
        Centre the embeddings, standardise each target's cosines over the regulators, and give the share of a standard
        normal below: the order is kept, also of the dissimilar ones. Off: the plain cosine, from 0 (opposite) to 1.

    Examples
    --------
    >>> similarity_scores([[1.0, 0.0], [1.0, 1.0], [-1.0, 0.0]], [0], [1, 2], standardise=False).round(3).tolist()
    [[0.854, 0.0]]
    """
    cosines = cosine_scores(embeddings, regulators, targets, centre=standardise)
    if not standardise or len(cosines) < _REGULATORS_TO_STANDARDISE:
        return (1.0 + cosines) / 2.0
    other = np.asarray(list(regulators))[:, None] != np.asarray(list(targets))[None, :]
    # a regulator's cosine with itself is 1 and says nothing
    counted = np.ma.masked_invalid(np.where(other, cosines, np.nan))
    spread = np.maximum(counted.std(axis=0).filled(np.nan), 1e-12)
    return stats.norm.cdf((cosines - counted.mean(axis=0).filled(np.nan)) / spread)


def attention_scores(
    reader: CopyReader,
    cells: PerturbedCells,
    regulators: Sequence[int],
    targets: Sequence[int],
    *,
    layers: Sequence[int] | None = None,
    min_cells: int = 3,
    progress: bool = False,
) -> Matrix:
    """How much each target's slot attends to each regulator's, against even attention, over cells with both.

    Parameters
    ----------
    reader
        Of a model with eager attention, the only kind that gives its weights.
    regulators, targets
        Columns of the cells.
    layers
        Which layers to average; default all. Heads are averaged.
    min_cells
        Pairs seen together in fewer cells are NaN.

    Returns
    -------
    numpy.ndarray
        (regulators, targets): 1 is what even attention over the cell would give.
    """
    token = cells.match.cell_token
    regulator_token, target_token = token[list(regulators)], token[list(targets)]
    total = np.zeros((len(regulators), len(targets)))
    count = np.zeros_like(total)
    for ids, weights in Progress(
        _attention_of_cells(reader, cells, layers), total=len(cells), disable=not progress, leave=False
    ):
        slot = {int(t): place for place, t in enumerate(ids)}
        row = [i for i, t in enumerate(regulator_token) if int(t) in slot]
        column = [j for j, t in enumerate(target_token) if int(t) in slot]
        if not row or not column:
            continue
        to = [slot[int(regulator_token[i])] for i in row]
        of = [slot[int(target_token[j])] for j in column]
        where = np.ix_(row, column)
        total[where] += weights[np.ix_(of, to)].T * (len(ids) + 1)
        count[where] += 1
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count >= min_cells)


def _attention_of_cells(
    reader: CopyReader, cells: PerturbedCells, layers: Sequence[int] | None
) -> Iterator[tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]]:
    """Tokens of each cell with its attention, (genes, genes): query by key, without the species slot."""
    if reader.base.config._attn_implementation != "eager":
        raise InputError("attention networks need the model loaded with attn_implementation='eager'")
    chosen = list(range(reader.base.config.num_hidden_layers)) if layers is None else list(layers)
    for ids, values in _rows(cells):
        inputs: dict[str, Any] = {
            "input_ids": torch.from_numpy(ids.astype(np.int64))[None].to(reader.device),
            "values": torch.from_numpy(values)[None].to(reader.device),
            "species": torch.tensor([cells.match.species_index], device=reader.device),
        }
        with torch.inference_mode():
            attentions = reader.base(**inputs, output_attentions=True).attentions
        mean = torch.stack([attentions[layer][0].float().mean(0) for layer in chosen]).mean(0)
        yield ids, mean[1:, 1:].cpu().numpy()


def deletion_scores(
    reader: CopyReader,
    cells: PerturbedCells,
    regulators: Sequence[int],
    targets: Sequence[int],
    *,
    min_cells: int = 3,
    store: Any = None,
    key: str = "",
    progress: bool = False,
) -> tuple[Matrix, Matrix | None]:
    """Shift of every target when each regulator is deleted, against its shift under the other deletions.

    Some genes move whatever is deleted. So each target's shifts are centred and scaled over the regulators (with a
    small constant in the scale, as SAM does), and what is left above 0 is the regulator's own.

    Returns
    -------
    scores
        (regulators, targets), >= 0; NaN for pairs seen in fewer than `min_cells` cells.
    value_change
        Mean change of the target's predicted value; negative where the regulator held the target up. None for a
        model without the masked-gene head.
    """
    has_head = hasattr(reader.model, "value_decoder")
    plan = Plan([(int(r),) for r in regulators], len(regulators), [np.zeros(0, np.int64)] * len(regulators))
    screen = Screen(reader, cells, cells.editor(Edit("delete")), plan, targets=list(targets), read_values=has_head)
    pairs = screen.run(store=store, key=key, progress=progress).pairs
    n = pairs["n"]
    with np.errstate(invalid="ignore", divide="ignore"):
        shift = np.where(n >= min_cells, pairs["gene_cosine"] / n, np.nan)
        change = np.where(n >= min_cells, pairs["value_change"] / n, np.nan) if has_head else None
    return standardise_targets(shift), change


def standardise_targets(shift: Matrix) -> Matrix:
    """Centre and scale each column over rows; negative results become 0, NaN stays.

    Examples
    --------
    >>> standardise_targets(np.array([[1.0, 0.0], [3.0, 0.0], [1.0, 0.0]])).argmax(axis=0).tolist()
    [1, 0]
    """
    known = np.isfinite(shift)
    n = known.sum(0)
    filled = np.where(known, shift, 0.0)
    mean = np.divide(filled.sum(0), n, out=np.zeros(shift.shape[1]), where=n > 0)
    square = (np.where(known, shift - mean, 0.0) ** 2).sum(0)
    spread = np.sqrt(np.divide(square, n - 1, out=np.zeros(shift.shape[1]), where=n > 1))
    constant = float(np.median(spread[n > 1])) if (n > 1).any() else 0.0
    scale = spread + max(constant, 1e-12)
    return np.where(known, np.maximum((filled - mean) / scale, 0.0), np.nan)
