"""Sequences to vectors by any DNA language model of the Hugging Face Hub: DNABERT, Nucleotide Transformer, ..."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from ...tokenization.errors import InputError
from ...tokenization.files import atomic_path

_PROBE = "ACGTTGCATCAGGTACCTTAGACCATGACGTTGCATCAGGTACCTTAGACCATG"
_SEQUENCES_A_PART = 256


class DnaModelEmbedder:
    """Embed DNA with a model by name or local folder.

    Sequences longer than the model's context are cut into chunks of tokens; the chunks' vectors are averaged by
    their number of tokens. Tokenizers of overlapping k-mers (DNABERT) get their words split by blanks; those that
    split the text themselves (BPE, Nucleotide Transformer) get it whole.

    Parameters
    ----------
    model
        Name on the Hub, or folder.
    pooling
        ``mean`` over the tokens of the sequence, special ones left out; ``cls``: the first token.
    kmer
        Split the text into overlapping words of this length; ``auto`` looks at the tokenizer; 0 never.
    batch_size
        Chunks a batch.
    device
        ``cpu`` or ``cuda``.
    trust_remote_code
        Let the model's repository run its own code.
    resume
        Folder that keeps finished parts: a run that was killed goes on where it stopped. Parts of other sequences,
        models or settings are not taken.
    progress
        Called with (sequences done, sequences in all).

    Raises
    ------
    InputError
        If model or tokenizer cannot be loaded, or the tokenizer does not know DNA.

    Examples
    --------
    >>> embed = DnaModelEmbedder("InstaDeepAI/nucleotide-transformer-v2-50m-multi-species")  # doctest: +SKIP
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        *,
        pooling: Literal["mean", "cls"] = "mean",
        kmer: int | Literal["auto"] = "auto",
        batch_size: int = 16,
        device: str = "cpu",
        trust_remote_code: bool = False,
        resume: str | os.PathLike[str] | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        from transformers import AutoModel, AutoTokenizer

        if pooling not in ("mean", "cls"):
            raise InputError(f"pooling {pooling!r} is not known; choose mean or cls")
        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(str(model), trust_remote_code=trust_remote_code)
            self.model: Any = AutoModel.from_pretrained(str(model), trust_remote_code=trust_remote_code)
        except (OSError, ValueError, KeyError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"{model}: cannot be loaded as a DNA model and tokenizer ({reason})") from error
        self.model.eval().to(device)
        self.pooling, self.batch_size, self.device = pooling, batch_size, device
        self.resume, self.progress = resume, progress
        self.kmer = self._find_kmer(str(model)) if kmer == "auto" else kmer
        self.prefix, self.suffix = self._special_tokens()
        self.chunk = self._context() - len(self.prefix) - len(self.suffix)
        local = Path(model).is_dir()
        self.record: dict[str, Any] = {
            "embedder": "DNA language model",
            "model": Path(model).name if local else str(model),
            "revision": getattr(self.model.config, "_commit_hash", None) or "not recorded",
            "pooling": pooling,
            "kmer": self.kmer,
            "tokens_a_chunk": self.chunk,
        }

    def __call__(self, sequences: pd.Series) -> npt.NDArray[np.float32]:
        """Vectors of the sequences, float32, shape (n, hidden size of the model)."""
        parts = []
        for start in range(0, len(sequences), _SEQUENCES_A_PART):
            parts.append(self._part(list(sequences.iloc[start : start + _SEQUENCES_A_PART])))
            if self.progress is not None:
                self.progress(min(start + _SEQUENCES_A_PART, len(sequences)), len(sequences))
        return np.concatenate(parts)

    def _part(self, sequences: list[str]) -> npt.NDArray[np.float32]:
        if self.resume is None:
            return self._embed(sequences)
        what = json.dumps([self.record, self._weights_digest(), sequences], sort_keys=True)
        kept = Path(self.resume) / f"{hashlib.sha256(what.encode()).hexdigest()[:32]}.npy"
        if not kept.is_file():
            vectors = self._embed(sequences)
            with atomic_path(kept) as temporary, open(temporary, "wb") as handle:
                np.save(handle, vectors, allow_pickle=False)
        return np.asarray(np.load(kept, allow_pickle=False), dtype=np.float32)

    def _weights_digest(self) -> str:
        """Tells models of one name apart, cheaply: a sum over every parameter."""
        sums = [float(parameter.detach().double().sum()) for parameter in self.model.parameters()]
        return hashlib.sha256(repr(sums).encode()).hexdigest()

    @torch.inference_mode()
    def _embed(self, sequences: list[str]) -> npt.NDArray[np.float32]:
        chunks: list[list[int]] = []
        owner: list[int] = []
        for number, sequence in enumerate(sequences):
            tokens = self._tokens(sequence)
            pieces = [tokens[start : start + self.chunk] for start in range(0, len(tokens), self.chunk)] or [[]]
            chunks += pieces
            owner += [number] * len(pieces)

        total = np.zeros((len(sequences), self.model.config.hidden_size))
        weight = np.zeros(len(sequences))
        # equal lengths together; the order is fixed, so the sums are
        order = sorted(range(len(chunks)), key=lambda place: (len(chunks[place]), place))
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            for place, vector in zip(batch, self._forward([chunks[place] for place in batch]), strict=True):
                size = max(1, len(chunks[place]))
                total[owner[place]] += size * vector
                weight[owner[place]] += size
        return (total / weight[:, None]).astype(np.float32)

    def _forward(self, chunks: list[list[int]]) -> npt.NDArray[np.float64]:
        rows = [self.prefix + chunk + self.suffix for chunk in chunks]
        longest = max(map(len, rows))
        pad = self.tokenizer.pad_token_id or 0
        ids = torch.tensor([row + [pad] * (longest - len(row)) for row in rows], device=self.device)
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=self.device)
        states = self.model(input_ids=ids, attention_mask=mask)[0].float()
        if self.pooling == "cls":
            return states[:, 0].double().cpu().numpy()
        inner = torch.zeros_like(mask)
        for place, chunk in enumerate(chunks):
            inner[place, len(self.prefix) : len(self.prefix) + len(chunk)] = 1
        summed = (states * inner[..., None]).sum(1)
        return (summed / inner.sum(1, keepdim=True).clamp(min=1)).double().cpu().numpy()

    def _tokens(self, sequence: str) -> list[int]:
        if self.kmer:
            sequence = " ".join(sequence[place : place + self.kmer] for place in range(len(sequence) - self.kmer + 1))
        return list(self.tokenizer(sequence, add_special_tokens=False, verbose=False)["input_ids"])

    def _find_kmer(self, name: str) -> int:
        """0 where the tokenizer reads plain DNA; else the length of its words."""
        self.kmer = 0
        if self._reads(0):
            return 0
        for k in range(8, 2, -1):
            self.kmer = k
            if self._reads(k):
                return k
        raise InputError(f"{name}: its tokenizer knows neither DNA text nor k-mers of 3 to 8 bases; is it a DNA model?")

    def _reads(self, k: int) -> bool:
        tokens = self._tokens(_PROBE)
        unknown = self.tokenizer.unk_token_id
        enough = len(tokens) == len(_PROBE) - k + 1 if k else len(tokens) > 1
        return enough and tokens.count(unknown) <= len(tokens) // 10

    def _special_tokens(self) -> tuple[list[int], list[int]]:
        """What the tokenizer puts before and after a sequence."""
        inner = self._tokens(_PROBE)
        text = _PROBE
        if self.kmer:
            text = " ".join(text[place : place + self.kmer] for place in range(len(text) - self.kmer + 1))
        whole = list(self.tokenizer(text)["input_ids"])
        for start in range(len(whole) - len(inner) + 1):
            if whole[start : start + len(inner)] == inner:
                return whole[:start], whole[start + len(inner) :]
        return [], []

    def _context(self) -> int:
        config = self.model.config
        limits = [self.tokenizer.model_max_length, getattr(config, "max_position_embeddings", None)]
        # RoBERTa-like models number positions from the padding index on
        offset = 2 if config.model_type in ("roberta", "esm", "xlm-roberta") else 0
        known = [limit for limit in limits if limit and 0 < limit < 1_000_000]
        if not known:
            return 2048
        context = min(known) - (offset if min(known) == limits[1] else 0)
        if context <= 8:
            raise InputError(f"{config.model_type}: a context of {context} tokens is too short for DNA")
        return int(context)
