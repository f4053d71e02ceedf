"""The encoder: self-attention through transformers' registry, feed-forward, LayerNorm after each (as BERT)."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

import torch
from torch import nn
from transformers.activations import ACT2FN
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .configuration_genecompass import GeneCompassConfig
from .inputs_genecompass import PackedCells

try:
    from torch.nn.attention.varlen import varlen_attn
except ImportError:  # PyTorch before 2.10
    varlen_attn = None  # type: ignore[assignment]


def takes_variable_lengths(device: torch.device, dtype: torch.dtype, dropout: float) -> bool:
    """Whether PyTorch's own attention can read packed cells where they lie, without padding.

    Its kernel runs on GPUs since Ampere, in half precision, and drops nothing.

    Examples
    --------
    >>> takes_variable_lengths(torch.device("cpu"), torch.bfloat16, dropout=0.0)
    False
    """
    if varlen_attn is None or device.type != "cuda" or dropout:
        return False
    return dtype in (torch.bfloat16, torch.float16) and torch.cuda.get_device_capability(device) >= (8, 0)


def eager_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention spelt out: the only implementation that also returns its weights.

    Parameters
    ----------
    query, key, value
        (batch, heads, slots, head size).
    attention_mask
        Added to the scores, broadcastable to (batch, heads, slots, slots); None where every slot may be seen.

    Returns
    -------
    tuple
        Output (batch, slots, heads, head size) and weights (batch, heads, slots, slots).
    """
    scores = torch.matmul(query, key.transpose(2, 3)) * scaling
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = nn.functional.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    weights = nn.functional.dropout(weights, p=dropout, training=module.training)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), weights


class PackedLayout:
    """How attention sees packed cells: where they lie, one after the other, or spread over (cells, longest).

    Every other layer works on the packed row. Attention implementations of the registry that take cumulative lengths
    need no layout at all.

    Parameters
    ----------
    packed
        Where the cells lie.
    how
        ``"in_place"``: PyTorch's kernel for variable lengths (`takes_variable_lengths`). ``"one_by_one"``: within each
        cell by itself, which suits a CPU: no mask and no padding. ``"spread"``: all cells at once, padded.
    """

    def __init__(self, packed: PackedCells, how: Literal["in_place", "one_by_one", "spread"]) -> None:
        self.how = how
        if how == "in_place":
            self.ends, self.longest = packed.cumulative(), packed.longest
        elif how == "one_by_one":
            self.lengths = packed.with_species.tolist()
        else:
            self.shape = (packed.num_cells, packed.longest)
            self.slots = packed.slot_in_padded()

    def spread(self, row: torch.Tensor) -> torch.Tensor:
        """(1, slots, ...) to (cells, longest, ...); what stands in empty slots is 0."""
        cells, longest = self.shape
        empty = row.new_zeros(cells * longest, *row.shape[2:])
        return empty.index_copy(0, self.slots, row[0]).view(cells, longest, *row.shape[2:])

    def gather(self, padded: torch.Tensor) -> torch.Tensor:
        """(cells, longest, ...) to (1, slots, ...)."""
        return padded.flatten(0, 1).index_select(0, self.slots).unsqueeze(0)


def attention_over(
    config: GeneCompassConfig,
    hidden_states: torch.Tensor,
    attention_mask: torch.Tensor | None,
    packed: PackedCells | None,
    *,
    training: bool,
) -> tuple[Any, PackedLayout | None, dict[str, Any]]:
    """Mask, packed layout and kernel arguments of all layers, found once per forward pass.

    Parameters
    ----------
    hidden_states
        With species slots: (batch, slots, hidden), packed (1, slots, hidden).
    attention_mask
        1 where a gene stands, (batch, genes); for padded cells.
    packed
        Where packed cells lie; None for padded ones.
    """
    if packed is None:
        if attention_mask is not None:
            attention_mask = nn.functional.pad(attention_mask, (1, 0), value=1)
        return create_bidirectional_mask(config, hidden_states, attention_mask), None, {}
    if "flash" in config._attn_implementation:
        ends, longest = packed.cumulative(), packed.longest
        names = {"cu_seq_lens_q": ends, "cu_seq_lens_k": ends, "max_length_q": longest, "max_length_k": longest}
        return None, None, names
    # eager attention may be asked for its weights, which have one shape only when spread out
    if config._attn_implementation == "sdpa":
        device = hidden_states.device
        if device.type == "cpu":
            return None, PackedLayout(packed, "one_by_one"), {}
        narrowed = torch.is_autocast_enabled(device.type)
        dtype = torch.get_autocast_dtype(device.type) if narrowed else hidden_states.dtype
        if takes_variable_lengths(device, dtype, config.attention_dropout if training else 0.0):
            return None, PackedLayout(packed, "in_place"), {}
    shape_only = hidden_states.new_empty(packed.num_cells, packed.longest, 1)
    mask = create_bidirectional_mask(config, shape_only, packed.padded_mask().long())
    return mask, PackedLayout(packed, "spread"), {}


class GeneCompassAttention(nn.Module):
    """Multi-head self-attention over a cell's species slot and genes, in both directions."""

    is_causal = False

    def __init__(self, config: GeneCompassConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.config = config
        self.head_size = size // config.num_attention_heads
        self.dropout = config.attention_dropout
        self.query = nn.Linear(size, size)
        self.key = nn.Linear(size, size)
        self.value = nn.Linear(size, size)
        self.output = nn.Linear(size, size)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        layout: PackedLayout | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Attend: (batch, slots, hidden) to the same shape, and the weights where the implementation gives them."""
        projected = [self.query(hidden_states), self.key(hidden_states), self.value(hidden_states)]
        if layout is None:
            mixed, weights = self._attend(projected, attention_mask, **kwargs)
        elif layout.how == "in_place":
            query, key, value = (states[0].unflatten(-1, (-1, self.head_size)) for states in projected)
            found = varlen_attn(query, key, value, layout.ends, layout.ends, layout.longest, layout.longest)
            mixed, weights = cast(torch.Tensor, found).flatten(-2).unsqueeze(0), None
        elif layout.how == "spread":
            mixed, weights = self._attend([layout.spread(states) for states in projected], attention_mask, **kwargs)
            mixed = layout.gather(mixed)
        else:
            cells = zip(*(states.split(layout.lengths, dim=1) for states in projected), strict=True)
            mixed = torch.cat([self._attend(cell, None, **kwargs)[0] for cell in cells], dim=1)
            weights = None
        return self.output(mixed), weights

    def _attend(
        self, projected: Sequence[torch.Tensor], mask: torch.Tensor | None, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        attend: Callable = eager_attention
        if self.config._attn_implementation != "eager":
            attend = ALL_ATTENTION_FUNCTIONS[self.config._attn_implementation]
        mixed, weights = attend(
            self,
            *(states.unflatten(-1, (-1, self.head_size)).transpose(1, 2) for states in projected),
            mask,
            dropout=self.dropout if self.training else 0.0,
            scaling=self.head_size**-0.5,
            **kwargs,
        )
        return mixed.flatten(-2), weights


class GeneCompassLayer(GradientCheckpointingLayer):
    """One encoder layer: attention, then feed-forward, each with residual and LayerNorm after it."""

    def __init__(self, config: GeneCompassConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.attention = GeneCompassAttention(config)
        self.attention_norm = nn.LayerNorm(size, eps=config.layer_norm_eps)
        self.intermediate = nn.Linear(size, config.intermediate_size)
        self.activation = ACT2FN[config.hidden_act]
        self.output = nn.Linear(config.intermediate_size, size)
        self.output_norm = nn.LayerNorm(size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        layout: PackedLayout | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """(batch, slots, hidden) to the same shape."""
        attended, _ = self.attention(hidden_states, attention_mask, layout, **kwargs)
        hidden_states = self.attention_norm(hidden_states + self.dropout(attended))
        fed = self.output(self.activation(self.intermediate(hidden_states)))
        return self.output_norm(hidden_states + self.dropout(fed))
