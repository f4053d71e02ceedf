"""What is published as data: vocabulary, corpus, prior knowledge, and the streaming reader."""

from importlib import import_module
from typing import Any

_HOMES = {
    "CorpusDataset": "corpus.local",
    "CorpusStream": "corpus.stream",
    "merge_states": "corpus.position",
    "open_corpus": "corpus.stream",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
