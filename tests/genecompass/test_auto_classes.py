"""``import genecompass`` registers with the Auto classes, whatever is imported first, and costs nothing by itself."""

import subprocess
import sys

import pytest

CHECK = """
from transformers import AutoConfig, AutoProcessor
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING as models
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING as processors
config = type(AutoConfig.for_model("genecompass", vocab_size=20))
assert config.__module__.startswith("genecompass."), config
assert models[config].__name__ == "GeneCompassForMaskedGeneModeling"
assert processors[config].__name__ == "GeneCompassProcessor"
"""

ORDERS = {
    "package first": "import genecompass; from transformers import AutoModel",
    "transformers first": "from transformers import AutoModel; import genecompass",
    "processor through transformers": "import genecompass; from transformers import AutoProcessor, AutoModel",
}


def _python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("order", ORDERS)
def test_auto_classes_know_the_package(order):
    done = _python(ORDERS[order] + CHECK)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "room", ["modeling_genecompass", "tokenization.processing_genecompass", "training.pretraining.pretrain"]
)
def test_rooms_import_on_their_own(room):
    done = _python(f"import genecompass.{room}")
    assert done.returncode == 0, done.stderr


def test_import_is_free():
    heavy = "{'torch', 'transformers', 'pandas', 'numpy'}"
    done = _python(f"import sys, genecompass.cli; found = {heavy} & set(sys.modules); sys.exit(', '.join(found) or 0)")
    assert done.returncode == 0, done.stderr
