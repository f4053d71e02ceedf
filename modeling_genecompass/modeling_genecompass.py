"""GeneCompass: a cell's genes, ranked by value, read by a BERT encoder that knows prior biology and the species."""

from typing import Any, cast

import torch
from torch import nn
from transformers.activations import ACT2FN
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.utils.generic import can_return_tuple

from .cell_genecompass import GeneCompassCellHead, GeneCompassCountDecoder
from .configuration_genecompass import GeneCompassConfig
from .embeddings_genecompass import GeneCompassEmbeddings
from .encoder_genecompass import GeneCompassLayer, attention_over
from .inputs_genecompass import PackedCells, check_contents, check_shapes
from .losses_genecompass import classification_loss, count_losses, mean_over, value_weight
from .outputs_genecompass import GeneCompassMaskedGeneOutput, GeneCompassModelOutput, GeneCompassTokenClassifierOutput

# Every sibling is imported here, used or not: older transformers fetch from a repository only what this file names.
from .pipelines_genecompass import CUSTOM_PIPELINES  # noqa: F401
from .pretrained_genecompass import GeneCompassPreTrainedModel
from .slots_genecompass import flat_slots, gene_slots, mean_over_genes, profile_slots, species_of

try:
    from transformers.utils.output_capturing import capture_outputs
except ImportError:  # transformers before 5.2 had it under another name
    from transformers.utils.generic import check_model_inputs as capture_outputs  # type: ignore[assignment]


class GeneCompassModel(GeneCompassPreTrainedModel):
    """The encoder without a head: cells in, one vector per slot out, the species slot first.

    Examples
    --------
    >>> model = GeneCompassModel(GeneCompassConfig.tiny(vocab_size=100)).eval()
    >>> ids, values = torch.tensor([[5, 9, 7]]), torch.tensor([[3.0, 2.0, 0.5]])
    >>> model(input_ids=ids, values=values, species=torch.tensor([1])).last_hidden_state.shape
    torch.Size([1, 4, 64])
    """

    _auto_class = "AutoModel"

    def __init__(self, config: GeneCompassConfig) -> None:
        super().__init__(config)
        self.embeddings = GeneCompassEmbeddings(config)
        self.species_embeddings = nn.Embedding(config.num_species, config.hidden_size)
        self.layers = nn.ModuleList(GeneCompassLayer(config) for _ in range(config.num_hidden_layers))
        self.cell_head = GeneCompassCellHead(config) if config.cell_size else None
        self.gradient_checkpointing = False
        self.post_init()
        if config.folded_rows is not None:
            self.eval()

    def get_input_embeddings(self) -> nn.Module:
        """The id embedding; of a folded model the folded table."""
        return self.embeddings.folded_genes if self.embeddings.is_folded else self.embeddings.word_embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the id embedding."""
        self.embeddings.word_embeddings = cast(nn.Embedding, value)

    @capture_outputs
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        species: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        cell_lengths: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        max_cell_length: int | None = None,
        profile_ids: torch.Tensor | None = None,
        profile_values: torch.Tensor | None = None,
        validate: bool | None = None,
        **kwargs: Any,
    ) -> GeneCompassModelOutput:
        """Encode cells.

        Parameters
        ----------
        input_ids, values
            Tokens and values of each cell's genes in rank order, (batch, genes); value -1 where masked.
        attention_mask
            1 where a gene stands, 0 at padding, (batch, genes). All 1 where None. A cell may be all padding.
        species
            Index into `config.species`, (batch,) or (batch, 1); 0 where None.
        position_ids
            Rank of each gene, (batch, genes); 0, 1, 2, ... where None. Not read by a model whose genes do not know
            their rank (``config.rank_positions``).
        cell_lengths
            Given: the batch is packed. `input_ids` and the like are (1, N), cell after cell without padding,
            this says how many genes each cell has, (cells,), and `species` is (cells,).
        inputs_embeds
            Fused genes (batch, genes, hidden) as ``model.embeddings.fuse`` gives, instead of `input_ids` and `values`.
        max_cell_length
            The largest of `cell_lengths` if known, which saves a GPU one wait.
        profile_ids, profile_values
            For the cell vector: tokens and values of all genes of each cell where the network reads some of them only,
            (cells, any), value 0 at padding. `input_ids` and `values` where None.
        validate
            Check tokens, values, species and positions; by default on CPU only, as a GPU would have to wait.
        **kwargs
            ``output_hidden_states``, ``output_attentions``, ``return_dict`` and what attention kernels take.

        Returns
        -------
        GeneCompassModelOutput
            ``last_hidden_state`` (batch, 1 + genes, hidden), the species slot first; packed: (1, N + cells, hidden),
            each cell's species slot directly before its genes. ``cell_embedding`` (cells, cell_width) of a model with a
            cell head.

        Raises
        ------
        ValueError
            Inputs that do not fit each other or the model.
        """
        batch, num_genes = check_shapes(self.config, input_ids, values, inputs_embeds, cell_lengths)
        if self.training and self.config.folded_rows is not None:
            raise ValueError(
                "this model's prior knowledge is folded, for inference only; train the unfolded checkpoint"
            )
        device = cast(torch.Tensor, input_ids if input_ids is not None else inputs_embeds).device
        cells = batch if cell_lengths is None else len(cell_lengths)
        species = species_of(species, cells, device)
        if validate or (validate is None and device.type == "cpu"):
            check_contents(self.config, input_ids, values, species, position_ids, cell_lengths)

        packed = None if cell_lengths is None else PackedCells(cell_lengths.to(device), num_genes, max_cell_length)
        if not self.config.rank_positions:
            position_ids = torch.zeros(1, num_genes, dtype=torch.long, device=device)
        elif position_ids is None:
            position_ids = packed.position_ids if packed else torch.arange(num_genes, device=device).unsqueeze(0)
        slot_species = species[packed.cell_of_gene].unsqueeze(0) if packed else species.unsqueeze(1)
        genes = self.embeddings(input_ids, values, slot_species, position_ids, inputs_embeds)
        # the species slot gets neither position nor LayerNorm: it joins after the embedding block
        species_slot = self.species_embeddings(species).to(genes.dtype)
        if packed:
            hidden_states = packed.insert_species(genes, species_slot)
        else:
            hidden_states = torch.cat([species_slot.unsqueeze(1), genes], dim=1)

        mask, layout, attention_kwargs = attention_over(
            self.config, hidden_states, attention_mask, packed, training=self.training
        )
        for layer in self.layers:
            hidden_states = layer(hidden_states, mask, layout, **attention_kwargs, **kwargs)
        cell_embedding = None
        if self.cell_head is not None and input_ids is not None and values is not None:
            whole = flat_slots(profile_ids, profile_values, species)
            cell_embedding = self._cells(hidden_states, input_ids, values, attention_mask, species, cell_lengths, whole)
        return GeneCompassModelOutput(last_hidden_state=hidden_states, cell_embedding=cell_embedding)

    def _cells(
        self,
        hidden_states: torch.Tensor,
        input_ids: torch.Tensor,
        values: torch.Tensor,
        attention_mask: torch.Tensor | None,
        species: torch.Tensor,
        cell_lengths: torch.Tensor | None,
        whole: tuple[torch.Tensor, ...] | None,
    ) -> torch.Tensor:
        """The cell head on states and counts."""
        head = cast(GeneCompassCellHead, self.cell_head)
        genes, species_slots = gene_slots(hidden_states, cell_lengths)
        tokens, shown, cell_of_gene = profile_slots(input_ids, values, attention_mask, cell_lengths)
        along, bag = head.read_profile(*(whole or (tokens, shown, species, cell_of_gene)))
        states = genes[0] if cell_lengths is not None else genes.flatten(0, 1)
        if cell_lengths is None and attention_mask is not None:
            states = states[attention_mask.bool().flatten()]
        vector = head(states, species_slots, shown, cell_of_gene, along)
        return torch.cat([vector, bag.to(vector.dtype)], dim=1)


class GeneCompassHeadTransform(nn.Module):
    """Dense, activation, LayerNorm: what stands before both decoders of the masked-gene model."""

    def __init__(self, config: GeneCompassConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.activation = ACT2FN[config.hidden_act]
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """(..., hidden) to the same shape."""
        return self.norm(self.activation(self.dense(states)))


class GeneCompassForMaskedGeneModeling(GeneCompassPreTrainedModel):
    """Predict hidden genes: which gene, and what value. Answers to ``AutoModelForMaskedLM``.

    Examples
    --------
    >>> model = GeneCompassForMaskedGeneModeling(GeneCompassConfig.tiny(vocab_size=100)).eval()
    >>> ids, values = torch.tensor([[5, 1, 7]]), torch.tensor([[3.0, -1.0, 0.5]])
    >>> labels, true_values = torch.tensor([[-100, 9, -100]]), torch.tensor([[3.0, 2.0, 0.5]])
    >>> model(input_ids=ids, values=values).logits.shape
    torch.Size([1, 3, 100])
    >>> model(input_ids=ids, values=values, labels=labels, labels_values=true_values).logits.shape
    torch.Size([1, 100])
    """

    _auto_class = "AutoModelForMaskedLM"
    _tied_weights_keys = {"decoder.weight": "genecompass.embeddings.word_embeddings.weight"}  # noqa: RUF012

    def __init__(self, config: GeneCompassConfig) -> None:
        super().__init__(config)
        if config.folded_rows is not None:
            self._tied_weights_keys = {}
        self.genecompass = GeneCompassModel(config)
        self.id_transform = GeneCompassHeadTransform(config)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size)
        self.value_transform = GeneCompassHeadTransform(config)
        self.value_decoder = nn.Linear(config.hidden_size, 1)
        if config.cell_size:
            self.count_decoder = GeneCompassCountDecoder(config)
        self.post_init()

    def get_output_embeddings(self) -> nn.Module:
        """The decoder, whose weight is the id embedding."""
        return self.decoder

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        """Replace the decoder."""
        self.decoder = new_embeddings

    def fold_prior_knowledge(self) -> "GeneCompassForMaskedGeneModeling":
        """As the encoder's, but the id embedding stays on as the decoder's own weight."""
        self._refuse_if_folded()
        self.decoder.weight = nn.Parameter(self.decoder.weight.detach().clone())
        self._tied_weights_keys = self.all_tied_weights_keys = {}
        super().fold_prior_knowledge()
        return self

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        species: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        cell_lengths: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        labels_values: torch.Tensor | None = None,
        value_targets: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        full_logits: bool | None = None,
        count_tokens: torch.Tensor | None = None,
        count_targets: torch.Tensor | None = None,
        count_measured: torch.Tensor | None = None,
        count_weights: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> GeneCompassMaskedGeneOutput:
        """Predict ids and values; inputs as `GeneCompassModel.forward`.

        Parameters
        ----------
        labels
            Gene ids to predict, -100 where there is none, (batch, genes).
        labels_values
            Values to predict, (batch, genes), float.
        value_targets
            Where the value is to be predicted, (batch, genes), bool; where `labels` has a target if None.
        num_items_in_batch
            Id targets of the whole accumulated batch, as the Trainer passes it: losses become sums divided by it.
        full_logits
            Scores and values for all gene slots though labels are given. Only target slots reach the head otherwise.
        count_tokens, count_targets, count_measured, count_weights
            Held-back counts that the cell vector has to predict: which genes are asked for, (genes,), how many counts
            of each, (cells, genes), where the cell's data set measures them, (cells, genes), and how much each cell
            weighs, (cells,). Without `labels`, the loss is the mean over cells of this alone.
        """
        outputs = self.genecompass(
            input_ids=input_ids,
            values=values,
            attention_mask=attention_mask,
            species=species,
            position_ids=position_ids,
            cell_lengths=cell_lengths,
            inputs_embeds=inputs_embeds,
            **kwargs,
        )
        genes, _ = gene_slots(outputs.last_hidden_state, cell_lengths)
        counts_loss = None
        if count_targets is not None:
            asked_of = species_of(species, len(count_targets), count_targets.device)
            scores = self.count_decoder(outputs.cell_embedding[:, : self.config.cell_size], asked_of, count_tokens)
            by_cell = count_losses(scores, count_targets, cast(torch.Tensor, count_measured))
            counts_loss = (by_cell if count_weights is None else by_cell * count_weights).sum()
            if labels is None:
                divisor = num_items_in_batch if num_items_in_batch is not None else len(count_targets)
                return GeneCompassMaskedGeneOutput(
                    loss=mean_over(counts_loss, divisor), count_loss=counts_loss, cell_embedding=outputs.cell_embedding
                )
        if labels is None:
            logits, value_predictions = self._ids(genes), self._values(genes)
            loss = id_loss = value_loss = None
        else:
            if labels_values is None:
                raise ValueError("labels are given without labels_values: the loss needs the values before masking")
            id_slots = labels != -100
            value_slots = id_slots if value_targets is None else value_targets.bool()
            logits = self._ids(genes[id_slots])
            value_predictions = self._values(genes[value_slots])
            id_loss = mean_over(
                nn.functional.cross_entropy(logits.float(), labels[id_slots], reduction="sum"),
                num_items_in_batch if num_items_in_batch is not None else len(logits),
            )
            errors = (value_predictions - labels_values[value_slots].float()).square().sum()
            value_loss = mean_over(errors, len(value_predictions)) * value_weight(len(logits), num_items_in_batch)
            loss = self.config.id_loss_weight * id_loss + self.config.value_loss_weight * value_loss
            if full_logits:
                logits, value_predictions = self._ids(genes), self._values(genes)
        return GeneCompassMaskedGeneOutput(
            loss=loss,
            id_loss=id_loss,
            value_loss=value_loss,
            count_loss=counts_loss,
            logits=logits,
            value_predictions=value_predictions,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            cell_embedding=outputs.cell_embedding,
        )

    def _ids(self, genes: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.id_transform(genes))

    def _values(self, genes: torch.Tensor) -> torch.Tensor:
        # in float32 whatever the rest computes in: bfloat16 has so few digits that values would come in steps
        states, decoder = self.value_transform(genes).float(), self.value_decoder
        with torch.autocast(states.device.type, enabled=False):
            return nn.functional.linear(states, decoder.weight.float(), decoder.bias.float()).squeeze(-1)


class GeneCompassForSequenceClassification(GeneCompassPreTrainedModel):
    """Classify cells (one label, several labels) or predict numbers of them.

    ``config.classifier_pooling`` says what speaks for a cell: its species slot, the mean of its genes, its vector.

    Examples
    --------
    >>> model = GeneCompassForSequenceClassification(GeneCompassConfig.tiny(vocab_size=100, num_labels=3)).eval()
    >>> model(input_ids=torch.tensor([[5, 9]]), values=torch.tensor([[2.0, 1.0]])).logits.shape
    torch.Size([1, 3])
    """

    _auto_class = "AutoModelForSequenceClassification"

    def __init__(self, config: GeneCompassConfig) -> None:
        super().__init__(config)
        self.genecompass = GeneCompassModel(config)
        width = config.cell_width if config.classifier_pooling == "cell" else config.hidden_size
        self.pooler = nn.Linear(width, width)
        self.dropout = nn.Dropout(_head_dropout(config))
        self.classifier = nn.Linear(width, cast(int, config.num_labels))
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        species: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        cell_lengths: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutput:
        """Classify cells; inputs as `GeneCompassModel.forward`.

        Parameters
        ----------
        labels
            Class (cells,), or 0/1 per class (cells, labels) for several labels, or numbers for regression;
            `config.problem_type` decides, or else their type. -100 (NaN in regression) where unknown.
        num_items_in_batch
            Labels of the whole accumulated batch, as the Trainer passes it.

        Returns
        -------
        SequenceClassifierOutput
            ``loss`` (scalar, with labels), ``logits`` (cells, labels), ``hidden_states``, ``attentions``.
        """
        outputs = self.genecompass(
            input_ids=input_ids,
            values=values,
            attention_mask=attention_mask,
            species=species,
            position_ids=position_ids,
            cell_lengths=cell_lengths,
            inputs_embeds=inputs_embeds,
            **kwargs,
        )
        genes, cells = gene_slots(outputs.last_hidden_state, cell_lengths)
        if self.config.classifier_pooling == "mean":
            cells = mean_over_genes(genes, attention_mask, cell_lengths)
        elif self.config.classifier_pooling == "cell":
            cells = outputs.cell_embedding
        logits = self.classify(self.pooler(cells))
        loss = None if labels is None else classification_loss(self.config, logits, labels, num_items_in_batch)
        return SequenceClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )

    def classify(self, pooled: torch.Tensor) -> torch.Tensor:
        """Logits (cells, labels) from what the pooler gives (cells, hidden)."""
        return self.classifier(self.dropout(torch.tanh(pooled)))


class GeneCompassForTokenClassification(GeneCompassPreTrainedModel):
    """Classify genes in the context of their cell.

    Examples
    --------
    >>> model = GeneCompassForTokenClassification(GeneCompassConfig.tiny(vocab_size=100, num_labels=3)).eval()
    >>> model(input_ids=torch.tensor([[5, 9]]), values=torch.tensor([[2.0, 1.0]])).logits.shape
    torch.Size([1, 2, 3])
    """

    _auto_class = "AutoModelForTokenClassification"

    def __init__(self, config: GeneCompassConfig) -> None:
        super().__init__(config)
        self.genecompass = GeneCompassModel(config)
        self.dropout = nn.Dropout(_head_dropout(config))
        self.classifier = nn.Linear(config.hidden_size, cast(int, config.num_labels))
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        species: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        cell_lengths: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        **kwargs: Any,
    ) -> GeneCompassTokenClassifierOutput:
        """Classify genes; inputs as `GeneCompassModel.forward`.

        Parameters
        ----------
        labels
            Class of each gene, -100 where it does not count, (batch, genes).
        num_items_in_batch
            Labels of the whole accumulated batch, as the Trainer passes it.
        """
        outputs = self.genecompass(
            input_ids=input_ids,
            values=values,
            attention_mask=attention_mask,
            species=species,
            position_ids=position_ids,
            cell_lengths=cell_lengths,
            inputs_embeds=inputs_embeds,
            **kwargs,
        )
        genes, species_slots = gene_slots(self.dropout(outputs.last_hidden_state), cell_lengths)
        logits = self.classifier(genes)
        loss = None
        if labels is not None:
            loss = classification_loss(self.config, logits.flatten(0, 1), labels.flatten(), num_items_in_batch)
        return GeneCompassTokenClassifierOutput(
            loss=loss,
            logits=logits,
            species_logits=self.classifier(species_slots),
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


def _head_dropout(config: GeneCompassConfig) -> float:
    return config.hidden_dropout if config.classifier_dropout is None else config.classifier_dropout
