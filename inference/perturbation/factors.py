"""Transcription factors: the curated human list of Lambert et al., Cell 172, 650-665 (2018).

The table beside this file holds it, with its source. Genes of other species are looked up by their human homolog where
the gene table knows one, else by the same symbol in capitals. A default for those without a list of their own:
`perturb` and `infer_grn` take any list instead.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

_TABLE = Path(__file__).with_name("transcription_factors.txt")


@cache
def human_transcription_factors() -> frozenset[str]:
    """Symbols of human transcription factors, former and present ones.

    Examples
    --------
    >>> "PAX6" in human_transcription_factors(), "ZFP36L2" in human_transcription_factors()
    (True, False)
    """
    lines = _TABLE.read_text(encoding="utf-8").splitlines()
    return frozenset(symbol for line in lines if not line.startswith("#") for symbol in line.split())


def is_transcription_factor(symbol: str) -> bool:
    """Whether a symbol, in capitals, is that of a human transcription factor.

    Examples
    --------
    >>> is_transcription_factor("Pdx1"), is_transcription_factor("INS")
    (True, False)
    """
    return symbol.upper() in human_transcription_factors()


def transcription_factors_among(symbols: Sequence[str]) -> npt.NDArray[np.int64]:
    """Positions of the transcription factors in a list of gene symbols.

    Examples
    --------
    >>> transcription_factors_among(["INS", "PAX6", "Sox2"]).tolist()
    [1, 2]
    """
    return np.asarray([i for i, symbol in enumerate(symbols) if is_transcription_factor(symbol)], dtype=np.int64)
