"""The corpus: raw single-cell counts as a streaming Hugging Face dataset - builder, checks, reader."""

from importlib import import_module
from typing import Any

_HOMES = {
    "BuildOptions": "builder",
    "BuildReport": "builder",
    "build": "builder",
    "CorpusStream": "stream",
    "CorpusDataset": "local",
    "merge_states": "position",
    "open_corpus": "stream",
    "open_published": "published",
    "padded": "stream",
    "verify": "checks",
    "summarize": "summary",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
