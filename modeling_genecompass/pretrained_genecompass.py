"""What all GeneCompass models share: loading, prior knowledge, folding."""

from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from transformers.modeling_utils import PreTrainedModel

from .cell_genecompass import GeneCompassCellHead
from .configuration_genecompass import GeneCompassConfig
from .embeddings_genecompass import GeneCompassEmbeddings
from .encoder_genecompass import GeneCompassAttention, GeneCompassLayer
from .pipelines_genecompass import CUSTOM_PIPELINES, CellEmbeddingPipeline


class GeneCompassPreTrainedModel(PreTrainedModel):
    """What all GeneCompass models share: loading, prior knowledge, folding."""

    config: GeneCompassConfig
    config_class = GeneCompassConfig
    base_model_prefix = "genecompass"
    _auto_class: str | None = None  # type: ignore[assignment]
    supports_gradient_checkpointing = True
    _no_split_modules = ["GeneCompassEmbeddings", "GeneCompassLayer"]  # noqa: RUF012
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_record_outputs = {"hidden_states": GeneCompassLayer, "attentions": GeneCompassAttention}  # noqa: RUF012

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load as `transformers.PreTrainedModel.from_pretrained` does, but refuse what would load wrong.

        Only the head may be new: a checkpoint of another kind of model gets a fresh one, and a classifier another
        number of labels with ``ignore_mismatched_sizes=True``.

        Raises
        ------
        ValueError
            The weights are damaged, pickled, not finite, or not those that the config describes.
        """
        want_info = kwargs.pop("output_loading_info", False)
        kwargs["use_safetensors"] = True  # never a pickle
        load: Any = super().from_pretrained
        try:
            model, info = load(pretrained_model_name_or_path, *args, output_loading_info=True, **kwargs)
        except RuntimeError as error:
            if "ignore_mismatched_sizes" not in str(error):
                raise
            raise ValueError(
                f"{pretrained_model_name_or_path}: weights have other shapes than config.json says; for another number "
                "of labels pass ignore_mismatched_sizes=True, else the two are not of one checkpoint: fetch both again"
            ) from error
        except Exception as error:
            if type(error).__name__ != "SafetensorError":
                raise
            raise ValueError(
                f"{pretrained_model_name_or_path}: the weights are damaged or cut short ({error}); download them again"
            ) from error
        model._refuse_what_loaded_wrong(str(pretrained_model_name_or_path), info)
        return (model, info) if want_info else model

    def _refuse_what_loaded_wrong(self, name: str, info: dict[str, Any]) -> None:
        """Weights that the encoder lacks, has too many of, or that are no numbers; ValueError names the first."""
        parts = {part for part, _ in self.base_model.named_children()}
        own_kind = type(self).__name__ in (self.config.architectures or [])

        def belongs_to_encoder(key: str) -> bool:
            return key.removeprefix(self.base_model_prefix + ".").split(".")[0] in parts

        def first(keys: Any, *, head_too: bool) -> str | None:
            names = sorted(key if isinstance(key, str) else key[0] for key in keys)
            return next((key for key in names if head_too or belongs_to_encoder(key)), None)

        missing = first(info["missing_keys"], head_too=own_kind and not info["mismatched_keys"])
        if missing is not None and (".prior_tables." in missing or ".prior_rows" in missing):
            raise ValueError(
                f"{name}: prior-knowledge table {missing.rsplit('.', 1)[-1]!r} is missing "
                "from the weights; attach it, or set `priors` in config.json to the tables that are there"
            )
        advice = "config.json and the weights are not of one checkpoint, or one is damaged: fetch both again"
        if missing is not None:
            raise ValueError(f"{name}: {missing!r} is missing from the weights; {advice}")
        unexpected = first(info["unexpected_keys"], head_too=own_kind)
        if unexpected is not None:
            raise ValueError(f"{name}: the weights hold {unexpected!r}, of which config.json knows nothing; {advice}")
        other_shape = first(info["mismatched_keys"], head_too=False)
        if other_shape is not None:
            raise ValueError(f"{name}: {other_shape!r} has another shape than config.json says; {advice}")
        for key, tensor in self.state_dict().items():
            if tensor.is_meta or not tensor.numel() or key in info["missing_keys"]:
                continue
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise ValueError(f"{name}: {key!r} holds NaN or infinite numbers; the weights are damaged")
            limit = {"prior_rows": self.config.vocab_size, "folded_index": self.config.folded_rows}.get(
                key.rsplit(".", 1)[-1]
            )
            if limit is not None and (int(tensor.min()) < 0 or int(tensor.max()) >= limit):
                raise ValueError(f"{name}: {key!r} points outside of its table; the weights are damaged")

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> None:
        """Save as `transformers.PreTrainedModel.save_pretrained` does, and name the pipelines that travel along."""
        file = CellEmbeddingPipeline.__module__.rpartition(".")[2]
        self.config.custom_pipelines = {
            task: {"impl": f"{file}.{name}", "pt": [auto]} for task, (name, auto) in CUSTOM_PIPELINES.items()
        }
        super().save_pretrained(save_directory, *args, **kwargs)
        # safetensors writes for the owner alone; the configuration beside has the permissions of any new file
        settings = Path(save_directory) / "config.json"
        if settings.exists():
            for weights in Path(save_directory).glob("*.safetensors"):
                weights.chmod(settings.stat().st_mode)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, GeneCompassEmbeddings):
            module.init_buffers()
        if isinstance(module, GeneCompassCellHead):
            module.init_own()

    @property
    def _embeddings(self) -> GeneCompassEmbeddings:
        return cast(GeneCompassEmbeddings, self.base_model.embeddings)

    def train(self, mode: bool = True) -> Any:
        """Switch training on or off; a folded model refuses to train."""
        if mode and self.config.folded_rows is not None:
            raise ValueError(
                "this model's prior knowledge is folded, for inference only; train the unfolded checkpoint"
            )
        return super().train(mode)

    def resize_token_embeddings(
        self, new_num_tokens: int | None = None, pad_to_multiple_of: int | None = None, mean_resizing: bool = True
    ) -> nn.Embedding:
        """Refuse: priors, homolog rows and gene table would no longer fit the ids."""
        raise ValueError("a GeneCompass vocabulary cannot be resized in place; build a model for the new gene table")

    @torch.no_grad()
    def set_prior_knowledge(self, tables: dict[str, torch.Tensor]) -> None:
        """Fill the prior-knowledge tables.

        Parameters
        ----------
        tables
            One (vocab, width) matrix for each name in `config.priors`; row i tells about token i.

        Raises
        ------
        ValueError
            A table is missing, unknown, of another shape or not finite, or the model is folded.

        Examples
        --------
        >>> from genecompass.modeling_genecompass import GeneCompassConfig, GeneCompassModel
        >>> model = GeneCompassModel(GeneCompassConfig.tiny(vocab_size=10, priors={"grn": 4}))
        >>> model.set_prior_knowledge({"grn": torch.ones(10, 4)})
        """
        self._refuse_if_folded()
        for name in [*self.config.priors, *tables]:
            if name not in tables:
                raise ValueError(f"prior-knowledge table {name!r} is missing; given: {', '.join(tables) or 'none'}")
            if name not in self.config.priors:
                known = ", ".join(self.config.priors) or "none"
                raise ValueError(f"prior-knowledge table {name!r} is unknown to this model, which has: {known}")
            expected = (self.config.vocab_size, self.config.priors[name])
            if tuple(tables[name].shape) != expected:
                raise ValueError(f"prior {name!r} has shape {tuple(tables[name].shape)}, expected {expected}")
            if not bool(torch.isfinite(tables[name]).all()):
                raise ValueError(f"prior {name!r} holds NaN or infinite numbers")
        for name, table in tables.items():
            self._embeddings.prior_tables.get_buffer(name).copy_(table)

    @torch.no_grad()
    def set_prior_rows(self, rows: torch.Tensor) -> None:
        """Set which row of the prior tables each token reads, by species.

        Parameters
        ----------
        rows
            (species, vocab), integers: a mouse cell may carry a human token and read the mouse gene's own row.

        Examples
        --------
        >>> from genecompass.modeling_genecompass import GeneCompassConfig, GeneCompassModel
        >>> model = GeneCompassModel(GeneCompassConfig.tiny(vocab_size=10))
        >>> model.set_prior_rows(torch.arange(10).repeat(2, 1))
        """
        self._refuse_if_folded()
        expected = (self.config.num_species, self.config.vocab_size)
        if tuple(rows.shape) != expected:
            raise ValueError(f"prior rows have shape {tuple(rows.shape)}, expected (species, vocab) = {expected}")
        if int(rows.min()) < 0 or int(rows.max()) >= self.config.vocab_size:
            raise ValueError(f"prior rows must lie in 0..{self.config.vocab_size - 1}")
        self._embeddings.prior_rows.copy_(rows)

    def set_prior_scale(self, scale: float) -> None:
        """Scale what the priors say, for a warm-up from 0 to 1; not saved."""
        self._refuse_if_folded()
        self._embeddings.prior_scale = float(scale)

    def fold_prior_knowledge(self) -> "GeneCompassPreTrainedModel":
        """Collapse ids, priors and their projections into one table, in place; gives the model itself.

        Exact up to rounding, several times smaller, faster, and saved as such. The folded model only infers.

        Examples
        --------
        >>> from genecompass.modeling_genecompass import GeneCompassConfig, GeneCompassModel
        >>> model = GeneCompassModel(GeneCompassConfig.tiny(vocab_size=10, priors={"grn": 4})).eval()
        >>> model.fold_prior_knowledge().config.folded_rows
        10
        """
        self._refuse_if_folded()
        self.config.folded_rows = self._embeddings.fold()
        return self.eval()

    def _refuse_if_folded(self) -> None:
        if self.config.folded_rows is not None:
            raise ValueError("prior knowledge is folded already; start from the unfolded checkpoint")
