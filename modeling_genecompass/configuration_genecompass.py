"""What shapes a GeneCompass model: sizes, prior-knowledge tables, species."""

from typing import Any

from transformers import PreTrainedConfig

AUTO_MAP = {
    "AutoConfig": "configuration_genecompass.GeneCompassConfig",
    "AutoModel": "modeling_genecompass.GeneCompassModel",
    "AutoModelForMaskedLM": "modeling_genecompass.GeneCompassForMaskedGeneModeling",
    "AutoModelForSequenceClassification": "modeling_genecompass.GeneCompassForSequenceClassification",
    "AutoModelForTokenClassification": "modeling_genecompass.GeneCompassForTokenClassification",
}
CLASSIFIER_POOLINGS = ("species", "mean", "cell")
PUBLISHED_PRIORS = ("promoter", "co_expression", "gene_family", "grn")


class GeneCompassConfig(PreTrainedConfig):
    """Sizes and options of a GeneCompass model.

    Parameters
    ----------
    vocab_size
        Number of tokens, ``<pad>`` (0) and ``<mask>`` (1) included.
    hidden_size, num_hidden_layers, num_attention_heads, intermediate_size
        Shape of the encoder.
    hidden_act
        Activation of the feed-forward layers and of the heads.
    hidden_dropout
        Dropout on embeddings, attention output and feed-forward output.
    attention_dropout
        Dropout on attention weights. The published model trained with 0.02; the default here is 0, because any
        other value keeps PyTorch from its fused attention kernels (about nine times slower on CPU) and changes
        nothing at inference.
    max_position_embeddings
        Longest cell in genes; a gene's position is its rank.
    priors
        Name to width of each prior-knowledge table, in the order in which they are concatenated. May be empty.
    prior_order
        Written on save, because JSON objects lose their order; no need to pass it.
    species
        Species names; a species' position is its index in `species` inputs. Index 0 stands in where none is given.
    unknown_rank
        Adds one position, at index `max_position_embeddings`, that says "rank unknown".
    id_loss_weight, value_loss_weight
        Weights of the two parts of the masked-gene loss.
    initializer_range
        Standard deviation of initial weights.
    layer_norm_eps, fusion_layer_norm_eps
        Epsilon of the encoder's LayerNorms and of the one that follows the fusion of id, value and priors.
    classifier_dropout
        Dropout before the classification heads; `hidden_dropout` where None.
    classifier_pooling
        What the cell classifier reads: ``"species"``, the species slot, as published; ``"mean"`` over the genes; or
        ``"cell"``, the cell vector.
    cell_size
        Width of the cell vector that the model gives as ``cell_embedding``; 0, as published: none.
    cell_profile
        Columns of a fixed random reading of the counts that stand beside it in ``cell_embedding``; 0 for none.
    cell_axes
        Axes of the fixed linear reading of counts that goes into it.
    cell_gate
        Where the weight of the network's part of it starts.
    rank_positions
        Whether genes know their rank; off, all stand at position 0.
    folded_rows
        Set by ``fold_prior_knowledge()``: rows of the folded gene table. Such a model refuses to train.
    **kwargs
        Whatever `transformers.PreTrainedConfig` takes (``num_labels``, ``id2label``, ``problem_type``, ...).

    Raises
    ------
    ValueError
        Sizes that do not fit, a prior without width, no species.

    Examples
    --------
    >>> config = GeneCompassConfig.tiny(vocab_size=100, priors={"promoter": 8})
    >>> config.priors, config.num_species
    ({'promoter': 8}, 2)
    """

    model_type = "genecompass"
    # what the Trainer must not gather as predictions
    keys_to_ignore_at_inference = ["id_loss", "value_loss", "species_logits", "hidden_states", "attentions"]  # noqa: RUF012

    def __init__(
        self,
        vocab_size: int = 50558,
        hidden_size: int = 768,
        num_hidden_layers: int = 12,
        num_attention_heads: int = 12,
        intermediate_size: int = 3072,
        hidden_act: str = "gelu",
        hidden_dropout: float = 0.02,
        attention_dropout: float = 0.0,
        max_position_embeddings: int = 2048,
        priors: dict[str, int] | None = None,
        prior_order: list[str] | None = None,
        species: list[str] | None = None,
        unknown_rank: bool = False,
        id_loss_weight: float = 0.2,
        value_loss_weight: float = 0.8,
        initializer_range: float = 0.02,
        layer_norm_eps: float = 1e-12,
        fusion_layer_norm_eps: float = 1e-5,
        classifier_dropout: float | None = None,
        classifier_pooling: str = "species",
        cell_size: int = 0,
        cell_profile: int = 0,
        cell_axes: int = 128,
        cell_gate: float = 0.3,
        rank_positions: bool = True,
        folded_rows: int | None = None,
        pad_token_id: int = 0,
        mask_token_id: int = 1,
        tie_word_embeddings: bool = True,
        **kwargs: Any,
    ) -> None:
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.intermediate_size = intermediate_size
        self.hidden_act = hidden_act
        self.hidden_dropout = hidden_dropout
        self.attention_dropout = attention_dropout
        self.max_position_embeddings = max_position_embeddings
        priors = dict(priors or {})
        self.prior_order = list(priors) if prior_order is None else list(prior_order)
        self.priors = _in_order(priors, self.prior_order)
        self.species = ["human", "mouse"] if species is None else list(species)
        self.unknown_rank = unknown_rank
        self.id_loss_weight = id_loss_weight
        self.value_loss_weight = value_loss_weight
        self.initializer_range = initializer_range
        self.layer_norm_eps = layer_norm_eps
        self.fusion_layer_norm_eps = fusion_layer_norm_eps
        self.classifier_dropout = classifier_dropout
        self.classifier_pooling = classifier_pooling
        self.cell_size = cell_size
        self.cell_profile = cell_profile
        self.cell_axes = cell_axes
        self.cell_gate = cell_gate
        self.rank_positions = rank_positions
        self.folded_rows = folded_rows
        self.mask_token_id = mask_token_id
        _check_numbers(self)
        if hidden_size % num_attention_heads:
            raise ValueError(
                f"hidden_size {hidden_size} is not a multiple of num_attention_heads {num_attention_heads}"
            )
        if classifier_pooling not in CLASSIFIER_POOLINGS:
            raise ValueError(f"classifier_pooling {classifier_pooling!r}: choose {' or '.join(CLASSIFIER_POOLINGS)}")
        if classifier_pooling == "cell" and not cell_size:
            raise ValueError("classifier_pooling 'cell': this model has no cell vector (cell_size is 0)")
        if cell_profile and not cell_size:
            raise ValueError("cell_profile: this model has no cell vector (cell_size is 0) for it to stand beside")
        if not self.species:
            raise ValueError("species is empty: name at least one")
        kwargs |= {"pad_token_id": pad_token_id, "tie_word_embeddings": tie_word_embeddings}
        super().__init__(**kwargs)

    @property
    def num_species(self) -> int:
        """Number of species."""
        return len(self.species)

    @property
    def cell_width(self) -> int:
        """Numbers of ``cell_embedding``; 0 where there is none."""
        return self.cell_size + self.cell_profile

    @property
    def num_positions(self) -> int:
        """Rows of the position embedding: one a rank, and one more where `unknown_rank` asks for it."""
        return self.max_position_embeddings + int(self.unknown_rank)

    @classmethod
    def base(cls, **kwargs: Any) -> "GeneCompassConfig":
        """Base, as published: 12 layers, 768 wide, four priors of width 768.

        Examples
        --------
        >>> GeneCompassConfig.base().num_hidden_layers
        12
        """
        return cls(**{"priors": dict.fromkeys(PUBLISHED_PRIORS, 768), **kwargs})

    @classmethod
    def small(cls, **kwargs: Any) -> "GeneCompassConfig":
        """Small, as the size of the published file suggests: 6 layers, 256 wide, four priors of width 768.

        Examples
        --------
        >>> GeneCompassConfig.small().hidden_size
        256
        """
        sizes = {"hidden_size": 256, "num_hidden_layers": 6, "num_attention_heads": 4, "intermediate_size": 512}
        return cls(**{"priors": dict.fromkeys(PUBLISHED_PRIORS, 768), **sizes, **kwargs})

    @classmethod
    def tiny(cls, **kwargs: Any) -> "GeneCompassConfig":
        """Tiny, for demonstrations and tests on a laptop: 2 layers, 64 wide, no priors unless given.

        Examples
        --------
        >>> GeneCompassConfig.tiny(vocab_size=500).intermediate_size
        128
        """
        sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
        return cls(**{**sizes, **kwargs})

    def save_pretrained(self, save_directory: Any, push_to_hub: bool = False, **kwargs: Any) -> Any:
        """Save with the full `auto_map`, so that every head loads from any checkpoint.

        A map that came from another repository would point back to it; the code travels with the weights instead.
        """
        self.auto_map = dict(AUTO_MAP)
        return super().save_pretrained(save_directory, push_to_hub=push_to_hub, **kwargs)


# far beyond any model of this kind: a damaged or hostile configuration shall not ask for hours or all the memory
_LIMITS = {
    "vocab_size": 10_000_000,
    "hidden_size": 65_536,
    "num_hidden_layers": 1_000,
    "num_attention_heads": 4_096,
    "intermediate_size": 1_000_000,
    "max_position_embeddings": 1_000_000,
}


def _check_numbers(config: "GeneCompassConfig") -> None:
    for name, limit in _LIMITS.items():
        value, least = getattr(config, name), int(name != "num_hidden_layers")
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= limit:
            raise ValueError(f"{name} is {value!r}; it must be a whole number from {least} to {limit:,}")
    for name in ("hidden_dropout", "attention_dropout", "classifier_dropout"):
        value = getattr(config, name)
        if value is not None and not (isinstance(value, int | float) and 0 <= value < 1):
            raise ValueError(f"{name} is {value!r}; it must be a number from 0 to below 1")
    for name in ("layer_norm_eps", "fusion_layer_norm_eps", "initializer_range"):
        value = getattr(config, name)
        if not (isinstance(value, int | float) and 0 <= value < 1):
            raise ValueError(f"{name} is {value!r}; it must be a number from 0 to below 1")
    if config.folded_rows is not None and not (isinstance(config.folded_rows, int) and config.folded_rows >= 1):
        raise ValueError(f"folded_rows is {config.folded_rows!r}; it must be a whole number from 1")
    wrong = [name for name, width in config.priors.items() if not (isinstance(width, int) and width <= 1_000_000)]
    if wrong:
        raise ValueError(f"prior {wrong[0]!r} has width {config.priors[wrong[0]]!r}; expected a whole number")


def _in_order(priors: dict[str, int], order: list[str]) -> dict[str, int]:
    if sorted(priors) != sorted(order):
        raise ValueError(f"prior_order {order} does not name the same tables as priors {sorted(priors)}")
    for name, width in priors.items():
        if not name.isidentifier():
            raise ValueError(f"prior name {name!r} must be a plain word such as 'promoter'")
        if isinstance(width, int | float) and width < 1:
            raise ValueError(f"prior {name!r} has width {width}; expected at least 1")
    return {name: priors[name] for name in order}
