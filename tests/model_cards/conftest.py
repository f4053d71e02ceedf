"""The stand-in for the Hub, clients in processes of their own (HF_ENDPOINT is read at import), and small folders."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_spec = importlib.util.spec_from_file_location("fake_hub", Path(__file__).with_name("fake_hub.py"))
fake_hub = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fake_hub)
TOKEN = fake_hub.TOKEN


@pytest.fixture
def hub():
    """A Hub of its own for every test."""
    hub = fake_hub.FakeHub()
    yield hub
    hub.close()


# Retries wait up to 30 seconds for a line that this Hub never brings back.
_NO_WAITING = "import time; time.sleep = lambda seconds: None\n"


@pytest.fixture
def client(hub, tmp_path):
    """Run Python in a fresh process that knows only the stand-in: ``client(code)``; text out, or the failed process."""

    def run(code, *, token=TOKEN, package=True, offline=False, home="home", check=True):
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "PYTEST"))}
        environment |= {
            "HF_ENDPOINT": hub.endpoint,
            "HF_HOME": str(tmp_path / home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_OFFLINE": "1" if offline else "0",
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "200",
        }
        if token:
            environment["HF_TOKEN"] = token
        # The package is installed by an import hook; -S would take its dependencies along, so the hook is blocked.
        block = "" if package else "import sys; sys.modules['genecompass'] = None\n"
        result = subprocess.run(
            [sys.executable, "-c", _NO_WAITING + block + code],
            capture_output=True,
            text=True,
            env=environment,
            timeout=180,
            check=False,
            cwd=tmp_path,
        )
        if check:
            assert result.returncode == 0, result.stdout + result.stderr
            return result.stdout
        return result

    return run


@pytest.fixture
def command(client):
    """Run the command line in a fresh process: ``command("verify", folder)``; the finished process."""

    def run(*arguments, **options):
        code = f"from genecompass.cli import main; main({[str(argument) for argument in arguments]!r})"
        return client(code, check=False, **options)

    return run


# --- small folders of every kind, made by the package's own writers ---------------------------------------------------


@pytest.fixture(scope="session")
def table():
    import pandas as pd
    from genecompass.tokenization.gene_table import GeneTable

    human = [f"ENSG{number:011d}" for number in range(1, 41)]
    mouse = [f"ENSMUSG{number:011d}" for number in range(1, 41)]
    genes = pd.DataFrame(
        {
            "gene_id": human + mouse,
            "symbol": [f"GENE{number}" for number in range(1, 41)] + [f"Gene{number}" for number in range(1, 41)],
            "species": ["human"] * 40 + ["mouse"] * 40,
            "biotype": "protein_coding",
            "median": 2.0,
            "homolog_gene_id": [None] * 40 + human[:30] + [None] * 10,
        }
    )
    return GeneTable.from_genes(genes)


@pytest.fixture(scope="session")
def _made_checkpoint(table, tmp_path_factory):
    """A tiny random masked-gene model with its processor, manifest and card."""
    import torch
    from genecompass.model_cards.card import write_card
    from genecompass.modeling_genecompass import GeneCompassConfig, GeneCompassForMaskedGeneModeling
    from genecompass.tokenization.manifest import write_manifest
    from genecompass.tokenization.processing_genecompass import GeneCompassProcessor

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("made") / "tiny"
    config = GeneCompassConfig.tiny(vocab_size=table.vocab_size, hidden_size=96, max_position_embeddings=64)
    GeneCompassForMaskedGeneModeling(config).save_pretrained(folder)
    GeneCompassProcessor.from_gene_table(table, max_length=64).save_pretrained(folder)
    write_manifest(folder, "checkpoint", extra={"training": {"seed": 0, "steps": 0}})
    write_card(folder)
    return folder


@pytest.fixture
def checkpoint(_made_checkpoint, tmp_path):
    return shutil.copytree(_made_checkpoint, tmp_path / "tiny")


@pytest.fixture(scope="session")
def _made_adapter(_made_checkpoint, tmp_path_factory):
    """A LoRA adapter for three cell types on top of the checkpoint."""
    import torch
    from genecompass.model_cards.card import write_card
    from genecompass.tokenization.files import write_json
    from genecompass.tokenization.manifest import write_manifest
    from peft import LoraConfig, TaskType, get_peft_model
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(1)
    model = AutoModelForSequenceClassification.from_pretrained(_made_checkpoint, num_labels=3)
    settings = LoraConfig(
        task_type=TaskType.SEQ_CLS, r=4, target_modules=["query", "value"], modules_to_save=["pooler", "classifier"]
    )
    folder = tmp_path_factory.mktemp("made") / "adapter"
    get_peft_model(model, settings).save_pretrained(folder)
    write_json(folder / "finetuning.json", {"labels": ["B cell", "NK cell", "monocyte"], "method": "lora"})
    (folder / "README.md").unlink(missing_ok=True)
    write_manifest(folder, "adapter", derived_from=_made_checkpoint)
    write_card(folder)
    return folder


@pytest.fixture
def adapter(_made_adapter, tmp_path):
    return shutil.copytree(_made_adapter, tmp_path / "adapter")


@pytest.fixture
def priors(table, tmp_path):
    """One prior table with random rows."""
    import numpy as np
    from genecompass.model_cards.card import write_card
    from genecompass.tokenization.manifest import write_manifest
    from safetensors.numpy import save_file

    folder = tmp_path / "priors"
    folder.mkdir()
    rows = np.random.default_rng(0).normal(size=(table.vocab_size, 96)).astype(np.float32)
    save_file({"gene_family": rows}, folder / "gene_family.safetensors", metadata={"source": "HGNC gene groups"})
    table.write(folder / "genes.parquet")
    write_manifest(folder, "priors")
    write_card(folder)
    return folder


@pytest.fixture
def corpus(table, tmp_path):
    """Twelve cells of two species in the published shape of a corpus."""
    import numpy as np
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq
    from genecompass.model_cards.card import write_card
    from genecompass.tokenization.manifest import write_manifest

    random = np.random.default_rng(0)
    folder = tmp_path / "corpus"
    configs = "configs:\n"
    for name, pattern in (("all", "*"), ("human", "human"), ("mouse", "mouse")):
        default = "\n  default: true" if name == "all" else ""
        configs += f"- config_name: {name}\n  data_files:\n  - split: train\n"
        configs += f"    path: data/{pattern}/train-*.parquet{default}\n"
    for species in table.species:
        genes = table.frame.loc[table.frame["species"] == species, ["gene_id", "symbol"]]
        (folder / "genes").mkdir(parents=True, exist_ok=True)
        (folder / "data" / species).mkdir(parents=True)
        genes.to_parquet(folder / "genes" / f"{species}.parquet", index=False)
        cells = []
        for number in range(6):
            expressed = np.sort(random.choice(len(genes), 10, replace=False)).astype(np.int32)
            counts = random.integers(1, 9, 10).astype(np.int32)
            cells.append({"genes": expressed, "counts": counts, "n_counts": counts.sum(), "species": species})
            cells[-1] |= {"dataset": "random", "cell_id": f"{species}-{number}"}
        pq.write_table(
            pa.Table.from_pandas(pd.DataFrame(cells), preserve_index=False),
            folder / "data" / species / "train-00000.parquet",
        )
    (folder / "README.md").write_text(f"---\nlicense: cc0-1.0\n{configs}---\n")
    write_manifest(folder, "corpus", extra={"species": {name: {"cells": 6, "genes": 40} for name in table.species}})
    write_card(folder)
    return folder
