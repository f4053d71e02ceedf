"""Cards, publishing and verification of checkpoints, adapters, prior tables and corpora."""

from importlib import import_module
from typing import Any

# public name -> the file that defines it; the callback needs transformers, which is slow to import
_HOMES = {
    "CardCallback": "callback",
    "write_card": "card",
    "write_table_card": "card",
    "PushPlan": "push",
    "Pushed": "push",
    "plan_push": "push",
    "point_at_hub": "push",
    "push_folder": "push",
    "Verification": "verify",
    "verify_source": "verify",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
