"""Perturbed copies through the model: batches by tokens without waste, and no more of the last layer than is read."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...tokenization.errors import InputError
from ...tokenization.gene_table import MASK_TOKEN

Row = tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]
Pooling = Literal["mean", "species"]


@dataclass(frozen=True)
class States:
    """What the model made of a batch of rows.

    Parameters
    ----------
    rows
        Which of the rows asked for: (batch,).
    input_ids
        (batch, genes); 0 at padding.
    cells
        Cell embeddings, (batch, hidden), float32.
    genes
        Contextual gene embeddings, (batch, genes, hidden), float32; None if not asked for.
    """

    rows: npt.NDArray[np.int64]
    input_ids: Tensor
    cells: Tensor
    genes: Tensor | None


class CopyReader:
    """Runs rows of tokens through a model.

    Parameters
    ----------
    model
        Any GeneCompass model; the masked-gene head is needed for `values_of` and `id_scores_of`.
    pooling
        Cell embedding: the ``"mean"`` over gene slots, or the ``"species"`` slot.
    max_tokens
        Slots in a batch, padding included.
    dtype
        Type to compute in. Effects of one gene can be as small as bfloat16's rounding: see `perturb`.

    Examples
    --------
    >>> from genecompass.modeling_genecompass import GeneCompassConfig, GeneCompassModel
    >>> reader = CopyReader(GeneCompassModel(GeneCompassConfig.tiny(vocab_size=50)).eval())
    >>> row = (np.array([5, 9], np.int32), np.array([2.0, 1.0], np.float32))
    >>> next(reader.read([row], species=0)).cells.shape
    torch.Size([1, 64])
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        pooling: Pooling = "mean",
        max_tokens: int = 16384,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if pooling not in ("species", "mean"):
            raise InputError(f"pooling={pooling!r}: use 'species' or 'mean'")
        self.model: Any = model
        self.base: Any = model.base_model
        self.pooling, self.max_tokens, self.dtype = pooling, max_tokens, dtype
        self.device = next(model.parameters()).device

    def read(
        self,
        rows: Sequence[Row],
        *,
        species: int,
        genes: bool = False,
        hide: npt.NDArray[np.int64] | None = None,
        positions: Sequence[npt.NDArray[np.int64]] | None = None,
    ) -> Iterator[States]:
        """Encode rows, longest first, so that a batch has next to no padding.

        Parameters
        ----------
        rows
            Tokens and values of each cell.
        species
            Index of their species.
        genes
            Also give gene embeddings.
        hide
            Tokens to mask: the model sees ``<mask>`` and value -1 in their slots (and no rank, if it was made for
            that); `States.input_ids` still holds them.
        positions
            Rank of each token of each row; default its place in the row.
        """
        lengths = np.array([len(ids) for ids, _ in rows])
        if (lengths == 0).any():
            raise InputError("a perturbed cell has no gene left that the model knows")
        order = np.argsort(-lengths, kind="stable")
        begin = 0
        while begin < len(order):
            size = max(1, self.max_tokens // (int(lengths[order[begin]]) + 1))
            chosen = order[begin : begin + size]
            ranks = None if positions is None else [positions[i] for i in chosen]
            yield self._encode([rows[i] for i in chosen], chosen, species, genes, hide, ranks)
            begin += size

    @torch.inference_mode()
    def _encode(
        self,
        rows: list[Row],
        which: npt.NDArray[np.int64],
        species: int,
        want_genes: bool,
        hide: npt.NDArray[np.int64] | None,
        positions: list[npt.NDArray[np.int64]] | None,
    ) -> States:
        longest = max(len(ids) for ids, _ in rows)
        ids = np.zeros((len(rows), longest), dtype=np.int64)
        values = np.zeros((len(rows), longest), dtype=np.float32)
        for place, (row_ids, row_values) in enumerate(rows):
            ids[place, : len(row_ids)] = row_ids
            values[place, : len(row_values)] = row_values
        input_ids = torch.from_numpy(ids).to(self.device)
        mask = input_ids != 0
        inputs = {
            "input_ids": input_ids,
            "values": torch.from_numpy(values).to(self.device),
            # without padding there is nothing to mask, and attention takes its fast path
            "attention_mask": None if bool(mask.all()) else mask.long(),
            "species": torch.full((len(rows),), species, dtype=torch.long, device=self.device),
        }
        if positions is not None:
            ranks = np.zeros((len(rows), longest), dtype=np.int64)
            for place, own in enumerate(positions):
                ranks[place, : len(own)] = own
            inputs["position_ids"] = torch.from_numpy(ranks).to(self.device)
        if hide is not None and len(hide):
            self._hide(inputs, hide)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            if not want_genes and self.pooling == "species":
                return States(which, input_ids, self._species_slot(inputs).float(), None)
            states = self.base(**inputs).last_hidden_state
        slots = states[:, 1:].float()
        cells = states[:, 0].float() if self.pooling == "species" else _mean_of(slots, mask)
        return States(which, input_ids, cells, slots if want_genes else None)

    def _hide(self, inputs: dict[str, Any], hide: npt.NDArray[np.int64]) -> None:
        hidden = torch.isin(inputs["input_ids"], torch.as_tensor(hide, device=self.device))
        inputs["input_ids"] = inputs["input_ids"].masked_fill(hidden, MASK_TOKEN)
        inputs["values"] = inputs["values"].masked_fill(hidden, -1.0)
        if self.base.config.unknown_rank:
            ranks = inputs.get("position_ids")
            if ranks is None:
                ranks = torch.arange(hidden.shape[1], device=self.device).expand(hidden.shape)
            inputs["position_ids"] = ranks.masked_fill(hidden, self.base.config.max_position_embeddings)

    def _species_slot(self, inputs: dict[str, Any]) -> Tensor:
        """Last state of the species slot alone: in the last layer only that slot asks, all others just answer."""
        last = self.base.layers[-1]
        before: list[tuple[Tensor, Tensor | None]] = []

        def stop(_: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
            before.append((arguments[0], arguments[1] if len(arguments) > 1 else named.get("attention_mask")))
            raise _Stop

        handle = last.register_forward_pre_hook(stop, with_kwargs=True)
        try:
            self.base(**inputs)
        except _Stop:
            pass
        finally:
            handle.remove()
        hidden, _ = before[0]
        return _last_layer_of_first_slot(last, hidden, inputs["attention_mask"])

    @torch.inference_mode()
    def values_of(self, genes: Tensor) -> Tensor:
        """Value that the masked-gene head reads at each slot: (..., hidden) to (...)."""
        self._need_head()
        weights = self.model.value_decoder.weight.dtype
        return self.model.value_decoder(self.model.value_transform(genes.to(weights))).squeeze(-1).float()

    @torch.inference_mode()
    def id_scores_of(self, genes: Tensor, tokens: Tensor) -> Tensor:
        """Log-probability that the head gives each slot's own gene: (slots, hidden) and (slots,) to (slots,)."""
        self._need_head()
        weights = self.model.decoder.weight.dtype
        logits = self.model.decoder(self.model.id_transform(genes.to(weights))).float()
        return logits.log_softmax(-1).gather(-1, tokens.unsqueeze(-1)).squeeze(-1)

    def _need_head(self) -> None:
        if not hasattr(self.model, "value_decoder"):
            raise InputError(
                "predicted values and ids need a checkpoint with the masked-gene head (AutoModelForMaskedLM)"
            )


class _Stop(Exception):  # noqa: N818
    """Leaves a forward pass before its last layer."""


def _mean_of(slots: Tensor, mask: Tensor) -> Tensor:
    weight = mask.unsqueeze(-1).to(slots.dtype)
    return (slots * weight).sum(1) / weight.sum(1)


def _last_layer_of_first_slot(layer: Any, hidden: Tensor, attention_mask: Tensor | None) -> Tensor:
    """What `layer` gives for slot 0: (batch, slots, hidden) to (batch, hidden)."""
    attention = layer.attention
    first = hidden[:, :1]

    def heads(states: Tensor) -> Tensor:
        return states.unflatten(-1, (-1, attention.head_size)).transpose(1, 2)

    mask = None
    if attention_mask is not None:
        mask = F.pad(attention_mask, (1, 0), value=1).bool()[:, None, None, :]
    mixed = F.scaled_dot_product_attention(
        heads(attention.query(first)), heads(attention.key(hidden)), heads(attention.value(hidden)), attn_mask=mask
    )
    attended = attention.output(mixed.transpose(1, 2).flatten(-2))
    first = layer.attention_norm(first + attended)
    fed = layer.output(layer.activation(layer.intermediate(first)))
    return layer.output_norm(first + fed)[:, 0]


def cosine_distance(a: Tensor, b: Tensor) -> Tensor:
    """1 - cosine, as half the squared distance of the directions: exact even where both nearly agree. (...)."""
    a, b = F.normalize(a.double(), dim=-1), F.normalize(b.double(), dim=-1)
    return 0.5 * (a - b).square().sum(-1)
