"""Gene slots: id, value and prior knowledge fused into one vector, with the rank as position."""

from typing import cast

import torch
from torch import nn
from transformers import initialization as init

from .configuration_genecompass import GeneCompassConfig


class GeneCompassEmbeddings(nn.Module):
    """Fuse each gene's id, value and prior knowledge; add its rank.

    Per slot: id embedding and projected priors are concatenated and mapped to the hidden size; the value is added
    along a learned direction (together one linear map of the concatenation); then LayerNorm, QuickGELU, a linear
    map, the position embedding of the rank, LayerNorm and dropout.

    Everything before the first LayerNorm depends on the gene and the species alone, apart from the value's
    direction. So it is computed once per distinct gene on CPU, and ``fold()`` freezes it into one table.

    The tables themselves are buffers: they travel with the checkpoint and never train.
    """

    prior_rows: torch.Tensor
    folded_index: torch.Tensor

    def __init__(self, config: GeneCompassConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.vocab_size = config.vocab_size
        self.num_species = config.num_species
        self.prior_names = list(config.priors)
        # scales what the priors say; a training callback may raise it from 0 to 1 as a warm-up
        self.prior_scale = 1.0
        # Cells share most of their genes. On CPU the projections run once per distinct gene; on a GPU finding the
        # distinct ones would stall it for longer than it saves.
        self.share_distinct_genes = True
        if config.folded_rows is None:
            self.word_embeddings = nn.Embedding(config.vocab_size, size, padding_idx=config.pad_token_id)
            self.prior_tables = nn.Module()
            for name, width in config.priors.items():
                self.prior_tables.register_buffer(name, torch.zeros(config.vocab_size, width))
            self.prior_projections = nn.ModuleDict({name: nn.Linear(w, size) for name, w in config.priors.items()})
            self.register_buffer("prior_rows", torch.arange(config.vocab_size).repeat(config.num_species, 1))
            self.fusion_genes = nn.Linear(size * (1 + len(config.priors)), size)
        else:
            self._make_folded(config.folded_rows, size)
        self.fusion_value = nn.Linear(1, size, bias=False)
        self.fusion_norm = nn.LayerNorm(size, eps=config.fusion_layer_norm_eps)
        self.fusion_output = nn.Linear(size, size)
        self.position_embeddings = nn.Embedding(config.num_positions, size)
        self.norm = nn.LayerNorm(size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout)

    @property
    def is_folded(self) -> bool:
        """Whether ids, priors and projections are collapsed into one table."""
        return hasattr(self, "folded_genes")

    def forward(
        self,
        input_ids: torch.Tensor | None,
        values: torch.Tensor | None,
        slot_species: torch.Tensor,
        position_ids: torch.Tensor,
        inputs_embeds: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Embed gene slots.

        Parameters
        ----------
        input_ids, values, position_ids
            Tokens, values and ranks, (batch, genes).
        slot_species
            Species index, broadcastable to `input_ids`.
        inputs_embeds
            Fused genes (batch, genes, hidden) as `fuse` returns them, instead of `input_ids` and `values`.

        Returns
        -------
        torch.Tensor
            (batch, genes, hidden).
        """
        if inputs_embeds is None:
            inputs_embeds = self.fuse(cast(torch.Tensor, input_ids), cast(torch.Tensor, values), slot_species)
        return self.dropout(self.norm(inputs_embeds + self.position_embeddings(position_ids)))

    def fuse(self, input_ids: torch.Tensor, values: torch.Tensor, slot_species: torch.Tensor) -> torch.Tensor:
        """Fuse id, value and priors of every slot: (batch, genes) to (batch, genes, hidden)."""
        genes = self._gene_part(input_ids, slot_species.expand_as(input_ids))
        fused = self.fusion_norm(genes + self.fusion_value(values.unsqueeze(-1).to(genes.dtype)))
        return self.fusion_output(fused * torch.sigmoid(1.702 * fused))  # QuickGELU

    def _gene_part(self, tokens: torch.Tensor, species: torch.Tensor) -> torch.Tensor:
        if self.is_folded:
            return self.folded_genes(self.folded_index[species, tokens])
        if tokens.device.type != "cpu" or not self.share_distinct_genes:
            return self._combine(tokens, species)
        distinct, place = torch.unique(species * self.vocab_size + tokens, return_inverse=True)
        parts = self._combine(distinct % self.vocab_size, distinct // self.vocab_size)
        return nn.functional.embedding(place, parts)

    def _combine(self, tokens: torch.Tensor, species: torch.Tensor) -> torch.Tensor:
        """Everything before the fusion LayerNorm that does not depend on the value: (...) to (..., hidden)."""
        parts = [self.word_embeddings(tokens)]
        rows = self.prior_rows[species, tokens]
        for name in self.prior_names:
            projected = self.prior_projections[name](self.prior_tables.get_buffer(name)[rows])
            parts.append(projected if self.prior_scale == 1.0 else projected * self.prior_scale)
        return self.fusion_genes(torch.cat(parts, dim=-1))

    @torch.no_grad()
    def fold(self) -> int:
        """Collapse ids, priors and projections into one table of every distinct (token, prior row); its length.

        Species whose token reads the same prior row share a table row, so a second species costs only its
        remapped genes.
        """
        tokens = torch.arange(self.vocab_size, device=self.prior_rows.device).expand_as(self.prior_rows)
        pairs = (tokens * self.vocab_size + self.prior_rows).flatten()
        _, index = torch.unique(pairs, return_inverse=True)
        rows = int(index.max()) + 1
        example = torch.empty(rows, dtype=torch.long, device=index.device)
        example[index] = torch.arange(len(index), device=index.device)
        table = [
            self._combine(some % self.vocab_size, some // self.vocab_size) for some in example.split(4096)
        ]  # in pieces: the concatenation of a whole vocabulary is several times the table
        for name in ("word_embeddings", "prior_tables", "prior_projections", "prior_rows", "fusion_genes"):
            delattr(self, name)
        self._make_folded(rows, table[0].shape[-1])
        self.folded_genes.to(table[0].device)
        self.folded_genes.weight.data = torch.cat(table)
        self.folded_index = index.view(self.num_species, self.vocab_size)
        return rows

    def _make_folded(self, rows: int, size: int) -> None:
        self.folded_genes = nn.Embedding(rows, size)
        self.folded_genes.weight.requires_grad_(False)
        self.register_buffer("folded_index", torch.zeros(self.num_species, self.vocab_size, dtype=torch.long))

    def init_buffers(self) -> None:
        """Give buffers that no checkpoint filled their start: no knowledge, every token its own row."""
        if self.is_folded:
            init.zeros_(self.folded_index)
            return
        init.copy_(self.prior_rows, torch.arange(self.vocab_size).repeat(self.num_species, 1))
        for name in self.prior_names:
            init.zeros_(self.prior_tables.get_buffer(name))
