import pytest
import torch
from genecompass.modeling_genecompass import (
    GeneCompassConfig,
    GeneCompassForMaskedGeneModeling,
    GeneCompassForSequenceClassification,
    GeneCompassForTokenClassification,
    GeneCompassModel,
)
from safetensors.torch import load_file

CLASSES = {
    "AutoModel": GeneCompassModel,
    "AutoModelForMaskedLM": GeneCompassForMaskedGeneModeling,
    "AutoModelForSequenceClassification": GeneCompassForSequenceClassification,
    "AutoModelForTokenClassification": GeneCompassForTokenClassification,
}
VOCAB = 80


@pytest.fixture(scope="session")
def classes():
    return CLASSES


@pytest.fixture(scope="session")
def make():
    """Build a tiny model with random weights, priors and homologs: ``make(cls, **config)``."""

    def build(cls=GeneCompassModel, seed=0, **options):
        torch.manual_seed(seed)
        sizes = {"vocab_size": VOCAB, "hidden_size": 16, "intermediate_size": 32, "max_position_embeddings": 24}
        priors = {"promoter": 5, "co_expression": 3}
        config = GeneCompassConfig.tiny(**{**sizes, "priors": priors, "num_labels": 3, **options})
        model = cls(config).eval()
        if config.folded_rows is None:
            for parameter in model.parameters():  # larger than the usual start, so that nothing drowns in LayerNorms
                parameter.data.add_(0.2 * torch.randn_like(parameter))
            model.set_prior_knowledge({name: torch.randn(VOCAB, width) for name, width in config.priors.items()})
            rows = torch.stack([torch.arange(VOCAB), *(torch.randperm(VOCAB) for _ in config.species[1:])])
            model.set_prior_rows(rows)
        return model

    return build


@pytest.fixture(scope="session")
def make_cells():
    """Random cells of given lengths: ``make_cells([3, 5])`` gives one dictionary a cell."""

    def build(lengths, seed=0, species=None):
        generator = torch.Generator().manual_seed(seed)
        cells = []
        for i, length in enumerate(lengths):
            cells.append(
                {
                    "input_ids": torch.randint(1, VOCAB, (length,), generator=generator),
                    "values": torch.rand(length, generator=generator) * 5,
                    "species": i % 2 if species is None else species[i],
                }
            )
        return cells

    return build


@pytest.fixture(scope="session")
def pad():
    """Pad cells to a batch: ``pad(cells, to=None)``."""

    def build(cells, to=None):
        width = max([1, *(len(cell["input_ids"]) for cell in cells)]) if to is None else to
        batch = {
            "input_ids": torch.zeros(len(cells), width, dtype=torch.long),
            "values": torch.zeros(len(cells), width),
            "attention_mask": torch.zeros(len(cells), width, dtype=torch.long),
            "species": torch.tensor([cell["species"] for cell in cells]),
        }
        for i, cell in enumerate(cells):
            n = len(cell["input_ids"])
            batch["input_ids"][i, :n], batch["values"][i, :n] = cell["input_ids"], cell["values"]
            batch["attention_mask"][i, :n] = 1
        return batch

    return build


@pytest.fixture(scope="session")
def pack():
    """Pack cells into one row."""

    def build(cells):
        return {
            "input_ids": torch.cat([cell["input_ids"] for cell in cells]).unsqueeze(0),
            "values": torch.cat([cell["values"] for cell in cells]).unsqueeze(0),
            "species": torch.tensor([cell["species"] for cell in cells]),
            "cell_lengths": torch.tensor([len(cell["input_ids"]) for cell in cells]),
        }

    return build


@pytest.fixture(scope="session")
def reference(fixtures):
    """Tensors that the published code computed on its tiny model."""
    return load_file(fixtures / "reference-tiny" / "tensors.safetensors")


@pytest.fixture(scope="session")
def converted(fixtures, tmp_path_factory):
    """The published tiny checkpoints in this format, by published folder name."""
    from genecompass.modeling_genecompass.conversion import convert_checkpoint

    root = tmp_path_factory.mktemp("converted")
    for name in ("masked_lm", "sequence_classification", "token_classification"):
        convert_checkpoint(fixtures / "reference-tiny" / name, root / name)
    return root
