"""Counts in, model inputs out: the processor of GeneCompass. Travels with every checkpoint."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BatchFeature, PreTrainedTokenizerFast, ProcessorMixin

from .feature_extraction_genecompass import GeneCompassFeatureExtractor
from .gene_index import GeneIndex


class GeneCompassProcessor(ProcessorMixin):
    """Join the feature extractor (counts to ranked values) and the tokenizer (gene id to token).

    The tokenizer gives every gene its own token. The feature extractor alone applies homologs: in a mouse cell, a
    gene with a human homolog takes the human token.

    Parameters
    ----------
    feature_extractor : GeneCompassFeatureExtractor
    tokenizer : PreTrainedTokenizerFast

    Examples
    --------
    >>> processor = GeneCompassProcessor.from_gene_table({"token": [0, 1, 2, 3],
    ...     "gene_id": ["<pad>", "<mask>", "ENSG00000254647", "ENSG00000115263"], "symbol": ["", "", "INS", "GCG"],
    ...     "species": ["", "", "human", "human"], "median": ["", "", 1.0, 2.0], "homolog_token": [-1] * 4})
    >>> batch = processor([[3, 2]], genes=["INS", "GCG"], species="human", return_tensors="np")
    >>> batch["input_ids"].tolist(), batch["values"].tolist(), batch["species"].tolist()
    ([[2, 3]], [[2.0, 1.0]], [0])
    >>> processor.decode(batch)["symbol"]
    ['INS', 'GCG']
    """

    def __init__(self, feature_extractor: Any, tokenizer: Any) -> None:
        super().__init__(feature_extractor, tokenizer)

    @classmethod
    def from_gene_table(cls, table: Any, **options: Any) -> "GeneCompassProcessor":
        """Make a processor from a vocabulary.

        Parameters
        ----------
        table
            `GeneTable`, `GeneIndex`, or the columns of a gene table (mapping or DataFrame).
        **options
            As for `GeneCompassFeatureExtractor`: ``max_length``, ``library_size``, ``min_genes``.
        """
        index = getattr(table, "index", None)
        if not isinstance(index, GeneIndex):
            index = table if isinstance(table, GeneIndex) else GeneIndex({k: list(table[k]) for k in table})
        return cls(GeneCompassFeatureExtractor(index, **options), gene_tokenizer(index.gene_ids))

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> "GeneCompassProcessor":  # type: ignore[override]
        """Load from a folder or Hub repository, without running code from there.

        ``max_length``, ``library_size`` and ``min_genes`` override what was saved.

        Raises
        ------
        ValueError
            Gene table and tokenizer number genes differently.
        """
        ours = ("trust_remote_code", "max_length", "library_size", "min_genes", "_from_auto")
        hub = {name: value for name, value in kwargs.items() if name not in ours}
        extractor = GeneCompassFeatureExtractor.from_pretrained(pretrained_model_name_or_path, **kwargs)
        tokenizer = PreTrainedTokenizerFast.from_pretrained(pretrained_model_name_or_path, **hub)
        tokens = {name: token for token, name in enumerate(extractor._index().gene_ids)}
        if tokenizer.get_vocab() != tokens:
            raise ValueError(
                f"{pretrained_model_name_or_path}: gene table (genes.tsv.gz, {len(tokens)} tokens) and tokenizer "
                f"({len(tokenizer)} tokens) do not number the same genes; fetch both again, they are of one checkpoint"
            )
        return cls(extractor, tokenizer)

    def save_pretrained(self, save_directory: Any, push_to_hub: bool = False, **kwargs: Any) -> list[str]:
        """Write ``genes.tsv.gz``, the tokenizer, ``processor_config.json`` and the code that reads them."""
        os.makedirs(save_directory, exist_ok=True)
        genes = self.feature_extractor.save_genes(save_directory)
        return [*super().save_pretrained(save_directory, push_to_hub=push_to_hub, **kwargs), genes]

    @property
    def gene_table(self) -> dict[str, list[Any]]:
        """The vocabulary, column by column: ``token``, ``gene_id``, ``symbol``, ``species``, and so on."""
        return self.feature_extractor.gene_index.columns()

    def __call__(  # type: ignore[override]
        self,
        counts: Any,
        genes: Any = None,
        species: str | Sequence[str] | None = None,
        *,
        gene_species: str | None = None,
        return_tensors: str | None = None,
        padding: bool | str = True,
        pad_to_multiple_of: int | None = None,
    ) -> BatchFeature:
        """Tokenise cells; see `GeneCompassFeatureExtractor` for `counts`, `genes`, `species`, `gene_species`.

        Parameters
        ----------
        return_tensors
            ``"pt"``, ``"np"`` or None (lists of arrays, not padded unless `padding` is ``"max_length"``).
        padding
            True pads to the longest cell of the batch, ``"max_length"`` to the extractor's maximum length.
        pad_to_multiple_of
            Round the width up to a multiple of this.

        Returns
        -------
        BatchFeature
            ``input_ids`` int64 (B, S), ``values`` float32 (B, S), ``attention_mask`` int64 (B, S), ``species``
            int64 (B,).
        """
        cells = self.feature_extractor(counts, genes=genes, species=species, gene_species=gene_species)
        if return_tensors is None and padding != "max_length":
            masks = [np.ones(len(row), dtype=np.int64) for row in cells["input_ids"]]
            return BatchFeature({**cells, "attention_mask": masks})
        sizes = [len(row) for row in cells["input_ids"]]
        width = self.feature_extractor.max_length if padding == "max_length" else max(sizes)
        width = -(-width // (pad_to_multiple_of or 1)) * (pad_to_multiple_of or 1)
        ids = np.zeros((len(sizes), width), dtype=np.int64)
        values = np.zeros((len(sizes), width), dtype=np.float32)
        for row, size in enumerate(sizes):
            ids[row, :size], values[row, :size] = cells["input_ids"][row], cells["values"][row]
        mask = (np.arange(width) < np.array(sizes)[:, None]).astype(np.int64)
        batch = {"input_ids": ids, "values": values, "attention_mask": mask, "species": np.array(cells["species"])}
        return BatchFeature(batch, tensor_type=return_tensors)

    def decode(self, batch: Mapping[str, Any], **kwargs: Any) -> dict[str, list[Any]]:  # type: ignore[override]
        """Read tokens back as a tidy table, one row per gene of a cell.

        Parameters
        ----------
        batch
            ``input_ids``, and where known ``values``, ``species`` and ``attention_mask``, as this processor made them.

        Returns
        -------
        dict
            Columns ``cell``, ``rank``, ``token``, ``gene_id``, ``symbol``, ``species``, ``value``, ``count`` (the raw
            count that the value stands for); ``pandas.DataFrame`` takes it as it is.
        """
        index = self.feature_extractor.gene_index
        cells = [np.asarray(row) for row in batch["input_ids"]]
        values = batch["values"] if "values" in batch else [np.full(len(row), np.nan) for row in cells]
        species = np.asarray(batch["species"] if "species" in batch else np.zeros(len(cells), int)).ravel()
        table: dict[str, list[Any]] = {
            name: [] for name in ("cell", "rank", "token", "gene_id", "symbol", "species", "value", "count")
        }
        for cell, (ids, row, code) in enumerate(zip(cells, values, species, strict=True)):
            kept = np.flatnonzero(ids != 0)
            tokens, value = ids[kept], np.asarray(row, dtype=np.float64)[kept]
            own = index.as_cell_genes(tokens, index.species[int(code)])
            table["cell"] += [cell] * len(kept)
            table["rank"] += kept.tolist()
            table["token"] += tokens.tolist()
            table["gene_id"] += [index.gene_ids[gene] for gene in own]
            table["symbol"] += [index.symbols[gene] for gene in own]
            table["species"] += [index.gene_species[gene] for gene in own]
            table["value"] += value.tolist()
            table["count"] += ((np.exp2(value) - 1) * index.value_medians[own]).round(2).tolist()
        return table


def gene_tokenizer(gene_ids: Sequence[str]) -> PreTrainedTokenizerFast:
    """A word-level tokenizer over gene ids, separated by white space; it loads with AutoTokenizer and no own code.

    There is no token for the unknown: an unknown gene id is left out of a text, and None in `convert_tokens_to_ids`.
    """
    tokenizer = Tokenizer(models.WordLevel({name: token for token, name in enumerate(gene_ids)}))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", mask_token="<mask>")


GeneCompassProcessor.register_for_auto_class("AutoProcessor")
