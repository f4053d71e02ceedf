"""After ``import genecompass``, the transformers Auto classes load GeneCompass without remote code.

Registering means importing torch and transformers: four seconds and half a gigabyte that workers which only read
counts, or ``genecompass --help``, should not pay. So it happens as soon as transformers' Auto models are imported,
by whomever.
"""

import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_AUTO_MODELS = "transformers.models.auto.modeling_auto"
_OURS = ("genecompass.modeling_genecompass", "genecompass.tokenization.processing_genecompass")


def register() -> None:
    """Register configuration, models, feature extractor and processor with the Auto classes; may be repeated.

    Examples
    --------
    >>> register()
    >>> from transformers import AutoConfig
    >>> AutoConfig.for_model("genecompass").model_type
    'genecompass'
    """
    from transformers import AutoFeatureExtractor, AutoProcessor

    from genecompass.modeling_genecompass import GeneCompassConfig  # its import registers the models
    from genecompass.tokenization import GeneCompassFeatureExtractor, GeneCompassProcessor

    AutoFeatureExtractor.register(GeneCompassConfig, GeneCompassFeatureExtractor, exist_ok=True)
    AutoProcessor.register(GeneCompassConfig, GeneCompassProcessor, exist_ok=True)


def register_when_needed() -> None:
    """Register now if transformers' Auto models are imported already, else once they are."""
    if _AUTO_MODELS in sys.modules:
        register()
    else:
        sys.meta_path.insert(0, _RegisterAfterAutoModels())


class _RegisterAfterAutoModels(MetaPathFinder):
    """Finds nothing itself: lets the import of the Auto models go its usual way, and registers right after it."""

    def __init__(self) -> None:
        self.asking_others = False

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _AUTO_MODELS or self.asking_others:
            return None
        self.asking_others = True
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self.asking_others = False
        if spec is not None and spec.loader is not None:
            spec.loader = _ThenRegister(spec.loader)
        return spec


class _ThenRegister(Loader):
    def __init__(self, usual: Loader) -> None:
        self.usual = usual

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.usual.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.usual.exec_module(module)
        # one of our own files asked for transformers and is not ready; importing the network registers it anyway
        if not any(_is_half_imported(name) for name in _OURS):
            register()


def _is_half_imported(name: str) -> bool:
    module = sys.modules.get(name)
    return module is not None and bool(getattr(module.__spec__, "_initializing", False))
