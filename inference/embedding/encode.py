"""Tokenised cells through a model in batches of equal work, and what is made of the states: cells and genes."""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from ...tokenization.batching import batches_by_tokens, pack_cells, pad_cells
from ...tokenization.errors import InputError
from ..checkpoint import encoder_of

POOLINGS = ("species", "mean", "both", "cell")
MAX_TOKENS = 16384


@dataclass(frozen=True)
class EncodedBatch:
    """Hidden states of some cells.

    Parameters
    ----------
    cells
        Positions of the cells in the tokenised set. Shape (B,).
    species_state
        State of the species token. Shape (B, H).
    gene_states
        States of the gene slots. Shape (B, S, H).
    input_ids
        Tokens of the gene slots. Shape (B, S).
    attention_mask
        1 on genes, 0 on padding. Shape (B, S).
    cell_vectors
        Cell vectors, of a model that has them. Shape (B, C).

    Examples
    --------
    >>> next(iter_encoded(model, tokenized)).gene_states.shape  # doctest: +SKIP
    torch.Size([32, 512, 64])
    """

    cells: npt.NDArray[np.int64]
    species_state: torch.Tensor
    gene_states: torch.Tensor
    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    cell_vectors: torch.Tensor | None = None


def padded_batches(
    tokenized: Any,
    *,
    max_tokens: int = MAX_TOKENS,
    max_cells: int | None = None,
    cells: Sequence[int] | npt.NDArray[np.int64] | None = None,
    device: str | torch.device = "cpu",
    progress: str | None = None,
) -> Iterator[tuple[npt.NDArray[np.int64], dict[str, torch.Tensor]]]:
    """Cells of similar length together, padded, at most `max_tokens` slots a batch, padding included.

    Parameters
    ----------
    tokenized
        `TokenizedCells`, or any sequence of ``{"input_ids", "values", "species"}``.
    max_tokens, max_cells
        Size of a batch.
    cells
        Positions to take; all where None.
    device
        Where the tensors go.
    progress
        Words for a progress bar; none where None.

    Yields
    ------
    cells, batch
        Positions in `tokenized`, and the tensors that a model's forward takes.
    """
    for positions, rows in _groups(tokenized, max_tokens, max_cells, cells, progress):
        yield positions, {name: tensor.to(device) for name, tensor in pad_cells(rows).items()}


def _groups(
    tokenized: Any,
    max_tokens: int,
    max_cells: int | None,
    cells: Sequence[int] | npt.NDArray[np.int64] | None,
    progress: str | None,
) -> Iterator[tuple[npt.NDArray[np.int64], list[Any]]]:
    """Positions and rows of cells of similar length, group by group."""
    from ...tokenization.progress import Progress

    chosen = np.arange(len(tokenized)) if cells is None else np.asarray(cells, dtype=np.int64)
    known = getattr(tokenized, "lengths", None)
    lengths = known[chosen] if known is not None else np.array([len(tokenized[i]["input_ids"]) for i in chosen])
    # a cell without a single known gene still takes one (masked) slot
    batches = batches_by_tokens(np.maximum(lengths, 1), max_tokens, max_cells=max_cells)
    for batch in Progress(batches, desc=progress, disable=progress is None, unit="batch", leave=False):
        positions = chosen[batch]
        yield positions, [tokenized[int(i)] for i in positions]


@torch.no_grad()
def iter_encoded(
    model: PreTrainedModel,
    tokenized: Any,
    *,
    layer: int = -1,
    max_tokens: int = MAX_TOKENS,
    max_cells: int | None = None,
    cells: Sequence[int] | npt.NDArray[np.int64] | None = None,
    bf16: bool = False,
    progress: str | None = None,
) -> Iterator[EncodedBatch]:
    """Run cells through the encoder, batch by batch, without gradients.

    Parameters
    ----------
    model
        A `GeneCompassModel`, or a model with a head, whose encoder is used. Switched to evaluation mode.
    tokenized
        `TokenizedCells`, or any sequence of ``{"input_ids", "values", "species"}``.
    layer
        0 is the input of the first layer, -1 the output of the last.
    max_tokens, max_cells, cells, progress
        As for `padded_batches`.
    bf16
        Compute in bfloat16 (autocast); states come back as float32.

    Yields
    ------
    EncodedBatch
        In order of length, not of position: use `cells` to put results in their place.

    Raises
    ------
    InputError
        The model has no such layer.

    Examples
    --------
    >>> for batch in iter_encoded(model, tokenized):  # doctest: +SKIP
    ...     embedding[batch.cells] = batch.species_state.numpy()
    """
    encoder = encoder_of(model).eval()
    layers = encoder.config.num_hidden_layers
    if not -layers - 1 <= layer <= layers:
        raise InputError(f"layer {layer}: this model has layers 0 (input) to {layers}, or -1 for the last")
    last = layer in (-1, layers)
    device = encoder.device
    for positions, rows in _groups(tokenized, max_tokens, max_cells, cells, progress):
        # packed: nothing is computed for padding, and attention needs no mask (benchmarks/encode.py)
        batch = pack_cells(rows)
        lengths = batch["cell_lengths"]
        with torch.autocast(device.type, torch.bfloat16) if bf16 else nullcontext():
            output = encoder(
                **{name: tensor.to(device) for name, tensor in batch.items()},
                max_cell_length=int(lengths.max()),
                output_hidden_states=not last,
            )
        packed = (output.last_hidden_state if last else output.hidden_states[layer])[0].float()
        states = pad_sequence(packed.split((lengths + 1).tolist()), batch_first=True)
        ids = pad_sequence(batch["input_ids"][0].split(lengths.tolist()), batch_first=True).to(device)
        mask = (torch.arange(ids.shape[1]) < lengths.unsqueeze(1)).long().to(device)
        vectors = output.cell_embedding
        vectors = None if vectors is None else vectors.float()
        yield EncodedBatch(positions, states[:, 0], states[:, 1:], ids, mask, vectors)


def pool(batch: EncodedBatch, pooling: str = "mean") -> torch.Tensor:
    """One vector a cell: the species token's state, the mean over its genes, or both side by side.

    Parameters
    ----------
    batch
        From `iter_encoded`.
    pooling
        ``"species"``, ``"mean"``, ``"both"`` or ``"cell"``, the model's own cell vector.

    Returns
    -------
    Tensor
        Shape (B, H), (B, 2H) for both, (B, C) for the cell vector. A cell without genes has zeros for a mean.
    """
    if pooling not in POOLINGS:
        raise InputError(f"unknown pooling {pooling!r}; choose {', '.join(POOLINGS)}")
    if pooling == "species":
        return batch.species_state
    if pooling == "cell":
        if batch.cell_vectors is None:
            raise InputError("pooling 'cell': this model has no cell vector; choose mean, species, both or profile")
        return batch.cell_vectors
    mask = batch.attention_mask.unsqueeze(-1).to(batch.gene_states.dtype)
    mean = (batch.gene_states * mask).sum(1) / mask.sum(1).clamp(min=1)
    return mean if pooling == "mean" else torch.cat([batch.species_state, mean], dim=1)


def width_of(config: Any, pooling: str) -> int:
    """Numbers of a cell's vector under a pooling.

    Raises
    ------
    InputError
        No such pooling, or a cell vector is asked of a model without one.
    """
    if pooling not in POOLINGS:
        raise InputError(f"unknown pooling {pooling!r}; choose {', '.join(POOLINGS)}")
    if pooling == "cell":
        if not config.cell_size:
            raise InputError("pooling 'cell': this model has no cell vector; choose mean, species, both or profile")
        return int(config.cell_width)
    return int(config.hidden_size) * (2 if pooling == "both" else 1)


def encode_cells(
    model: PreTrainedModel,
    tokenized: Any,
    *,
    pooling: str = "mean",
    layer: int = -1,
    max_tokens: int = MAX_TOKENS,
    max_cells: int | None = None,
    bf16: bool = False,
    gene_means: "GeneMeans | None" = None,
    progress: str | None = None,
) -> npt.NDArray[np.float32]:
    """Embed cells: one row a cell, in the order of `tokenized`.

    Parameters
    ----------
    model, tokenized, layer, max_tokens, max_cells, bf16, progress
        As for `iter_encoded`.
    pooling
        ``"mean"`` over the cell's genes, ``"species"`` for the species token, ``"both"`` side by side, ``"cell"`` for
        the cell vector of a model that has one.
    gene_means
        If given, every gene's states are added to it on the way.

    Returns
    -------
    ndarray
        float32, shape (cells, H), (cells, 2H) or (cells, C). The same to rounding whatever the batch size.

    Examples
    --------
    >>> encode_cells(model, tokenized, pooling="both").shape  # doctest: +SKIP
    (2700, 128)
    """
    embedding = np.zeros((len(tokenized), width_of(encoder_of(model).config, pooling)), dtype=np.float32)
    for batch in iter_encoded(
        model, tokenized, layer=layer, max_tokens=max_tokens, max_cells=max_cells, bf16=bf16, progress=progress
    ):
        embedding[batch.cells] = pool(batch, pooling).cpu().numpy()
        _refuse_if_not_finite(embedding[batch.cells], batch.cells)
        if gene_means is not None:
            gene_means.add(batch)
    return embedding


def _refuse_if_not_finite(states: npt.NDArray[np.float32], cells: npt.NDArray[np.int64]) -> None:
    wrong = ~np.isfinite(states).all(axis=1)
    if wrong.any():
        raise InputError(
            f"cell {int(cells[np.argmax(wrong)])}: the model gives NaN or infinite numbers, so nothing is written; "
            "its weights are damaged, or overflow in this precision (compute in float32, without bf16)"
        )


@dataclass(frozen=True)
class Moments:
    """Mean and spread of what a classifier's pooler gives over some cells.

    Parameters
    ----------
    mean, spread
        float32, shape (H,).

    Examples
    --------
    >>> Moments.of(np.array([[1.0], [3.0]], np.float32))
    Moments(mean=array([2.], dtype=float32), spread=array([1.], dtype=float32))
    """

    mean: npt.NDArray[np.float32]
    spread: npt.NDArray[np.float32]

    @staticmethod
    def of(pooled: npt.NDArray[np.float32]) -> "Moments":
        """Of these cells. Shape (cells, H)."""
        return Moments(pooled.mean(axis=0), pooled.std(axis=0))

    def give_to(self, pooled: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Shift and scale cells so that their moments become these; what does not vary is only shifted."""
        own = Moments.of(pooled)
        gain = np.where(own.spread > 1e-6, self.spread / np.maximum(own.spread, 1e-6), 1.0)
        return ((pooled - own.mean) * gain + self.mean).astype(np.float32)


@torch.no_grad()
def pool_for_classifier(
    model: PreTrainedModel,
    tokenized: Any,
    *,
    max_tokens: int = MAX_TOKENS,
    bf16: bool = False,
    progress: str | None = None,
) -> npt.NDArray[np.float32]:
    """What a cell classifier's pooler gives, on which `classify_pooled` decides. Shape (cells, H).

    Examples
    --------
    >>> pooled = pool_for_classifier(classifier, tokenized)  # doctest: +SKIP
    >>> classify_pooled(classifier, moments.give_to(pooled))  # as if they were training cells  # doctest: +SKIP
    """
    network: Any = model.eval()
    pooled = np.zeros((len(tokenized), network.pooler.out_features), dtype=np.float32)
    caught: list[torch.Tensor] = []
    hook = network.pooler.register_forward_hook(lambda layer, inputs, output: caught.append(output))
    try:
        for positions, batch in padded_batches(
            tokenized, max_tokens=max_tokens, device=network.device, progress=progress
        ):
            with torch.autocast(network.device.type, torch.bfloat16) if bf16 else nullcontext():
                network(**batch)
            pooled[positions] = caught.pop().float().cpu().numpy()
            _refuse_if_not_finite(pooled[positions], positions)
    finally:
        hook.remove()
    return pooled


@torch.no_grad()
def classify_pooled(model: PreTrainedModel, pooled: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Logits of cells from what `pool_for_classifier` gave. Shape (cells, labels)."""
    network: Any = model.eval()
    states = torch.from_numpy(pooled).to(network.device, network.dtype)
    return network.classify(states).float().cpu().numpy()


class GeneMeans:
    """Mean state of every gene over the cells that express it - by gene, never by rank position.

    Sums are kept in float64, so that the result does not depend on the order of a million cells.

    Parameters
    ----------
    vocab_size, hidden_size
        Shape of the result.

    Examples
    --------
    >>> means = GeneMeans(vocab_size=10, hidden_size=4)
    >>> means.means().shape
    (10, 4)
    """

    def __init__(self, vocab_size: int, hidden_size: int) -> None:
        self.sums = np.zeros((vocab_size, hidden_size), dtype=np.float64)
        self.cells = np.zeros(vocab_size, dtype=np.int64)

    def add(self, batch: EncodedBatch) -> None:
        """Add the gene slots of a batch."""
        real = batch.attention_mask.bool()
        tokens = batch.input_ids[real]
        unique, place = torch.unique(tokens, return_inverse=True)
        states = batch.gene_states[real].to(torch.float64 if batch.gene_states.device.type != "mps" else torch.float32)
        sums = torch.zeros(len(unique), states.shape[1], dtype=states.dtype, device=states.device)
        sums.index_add_(0, place, states)
        rows = unique.cpu().numpy()
        self.sums[rows] += sums.cpu().numpy()
        self.cells[rows] += torch.bincount(place, minlength=len(unique)).cpu().numpy()

    def means(self) -> npt.NDArray[np.float32]:
        """Mean by token; NaN for a token that no cell held. Shape (vocab, H)."""
        with np.errstate(invalid="ignore"):
            return (self.sums / np.where(self.cells, self.cells, np.nan)[:, None]).astype(np.float32)
