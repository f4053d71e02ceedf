"""The network: configuration, model and heads. Importing it registers them with the transformers Auto classes."""

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from .configuration_genecompass import GeneCompassConfig
from .modeling_genecompass import (
    GeneCompassForMaskedGeneModeling,
    GeneCompassForSequenceClassification,
    GeneCompassForTokenClassification,
    GeneCompassModel,
)
from .outputs_genecompass import GeneCompassMaskedGeneOutput, GeneCompassTokenClassifierOutput
from .pretrained_genecompass import GeneCompassPreTrainedModel

__all__ = [
    "GeneCompassConfig",
    "GeneCompassForMaskedGeneModeling",
    "GeneCompassForSequenceClassification",
    "GeneCompassForTokenClassification",
    "GeneCompassMaskedGeneOutput",
    "GeneCompassModel",
    "GeneCompassPreTrainedModel",
    "GeneCompassTokenClassifierOutput",
]

AutoConfig.register("genecompass", GeneCompassConfig, exist_ok=True)
AutoModel.register(GeneCompassConfig, GeneCompassModel, exist_ok=True)
AutoModelForMaskedLM.register(GeneCompassConfig, GeneCompassForMaskedGeneModeling, exist_ok=True)
AutoModelForSequenceClassification.register(GeneCompassConfig, GeneCompassForSequenceClassification, exist_ok=True)
AutoModelForTokenClassification.register(GeneCompassConfig, GeneCompassForTokenClassification, exist_ok=True)
