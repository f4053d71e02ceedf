"""A checkpoint whose files do not belong together is refused wherever it is loaded: no random weights, no NaN."""

import gzip
import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from genecompass.inference import load_checkpoint
from genecompass.inference.embedding.encode import encode_cells
from genecompass.modeling_genecompass import (
    GeneCompassConfig,
    GeneCompassForMaskedGeneModeling,
    GeneCompassForSequenceClassification,
    GeneCompassModel,
)
from genecompass.tokenization import GeneCompassProcessor
from genecompass.tokenization.checkpoint_files import check_checkpoint
from genecompass.tokenization.errors import InputError
from genecompass.tokenization.gene_table import GeneTable
from genecompass.tokenization.manifest import write_manifest
from safetensors.torch import load_file, save_file

GENES = 30


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    genes = pd.DataFrame({"gene_id": [f"ENSG{i:011d}" for i in range(GENES)], "species": "human", "median": 1.5})
    genes["symbol"] = [f"G{i}" for i in range(GENES)]
    table = GeneTable.from_genes(genes)
    folder = tmp_path_factory.mktemp("whole")
    torch.manual_seed(0)
    config = GeneCompassConfig.tiny(
        vocab_size=table.vocab_size, species=["human"], max_position_embeddings=64, priors={"grn": 4}
    )
    GeneCompassForMaskedGeneModeling(config).save_pretrained(folder)
    GeneCompassProcessor.from_gene_table(table, max_length=64).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "model")


def change_weights(folder, change):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def change_config(folder, **settings):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


def change_genes(folder, change):
    path = folder / "genes.tsv.gz"
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    path.write_bytes(gzip.compress(("\n".join(change(lines)) + "\n").encode()))


LAYER = "genecompass.layers.1."


def drop_layer(tensors):
    for name in [name for name in tensors if name.startswith(LAYER)]:
        del tensors[name]


def add_layer(tensors):
    tensors.update({name.replace(".layers.1.", ".layers.2."): tensors[name].clone() for name in list(tensors)})


def nan_row(tensors):
    tensors["genecompass.embeddings.word_embeddings.weight"][7] = torch.nan


def wild_rows(tensors):
    tensors["genecompass.embeddings.prior_rows"][0, 5] = 10**6


def no_median(lines):
    cells = [line.split("\t") for line in lines]
    place = cells[0].index("median")
    cells[9][place] = "0"
    return ["\t".join(row) for row in cells]


def swap(lines):
    first, second = lines[5].split("\t"), lines[6].split("\t")
    first[1], second[1] = second[1], first[1]
    return [*lines[:5], "\t".join(first), "\t".join(second), *lines[7:]]


DAMAGES = {
    "a layer gone": (lambda f: change_weights(f, drop_layer), "missing from the weights"),
    "a layer too many": (lambda f: change_weights(f, add_layer), "config.json knows nothing"),
    "config of more layers": (lambda f: change_config(f, num_hidden_layers=3), "missing from the weights"),
    "config of fewer layers": (lambda f: change_config(f, num_hidden_layers=1), "config.json knows nothing"),
    "config of another width": (lambda f: change_config(f, intermediate_size=64), "shapes"),
    "ten million layers": (lambda f: change_config(f, num_hidden_layers=10**7), "num_hidden_layers"),
    "no layers": (lambda f: change_config(f, num_hidden_layers=0), "config.json knows nothing"),
    "width in words": (lambda f: change_config(f, hidden_size="many"), "hidden_size"),
    "a row of NaN": (lambda f: change_weights(f, nan_row), "NaN or infinite"),
    "rows outside of the priors": (lambda f: change_weights(f, wild_rows), "outside of its table"),
    "a gene less": (lambda f: change_genes(f, lambda lines: lines[:-1]), "31 genes"),
    "two genes swapped": (lambda f: change_genes(f, swap), "do not number the same genes"),
    "a median of zero": (lambda f: change_genes(f, no_median), "has median 0"),
    "tokens out of order": (lambda f: change_genes(f, lambda t: [*t[:4], t[5], t[4], *t[6:]]), "in order"),
    "another species": (lambda f: change_config(f, species=["mouse"]), "species"),
    "cut short": (lambda f: (f / "model.safetensors").write_bytes(b"\0" * 100), "damaged"),
    "not JSON": (lambda f: (f / "config.json").write_text("{"), "not readable as JSON"),
    "a list": (lambda f: (f / "config.json").write_text("[1]"), "not settings"),
    "table cut short": (lambda f: (f / "genes.tsv.gz").write_bytes((f / "genes.tsv.gz").read_bytes()[:200]), "gene"),
    "tokenizer cut short": (lambda f: (f / "tokenizer.json").write_text("{"), "cannot be loaded"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_refused(folder, damage):
    act, words = DAMAGES[damage]
    act(folder)
    with pytest.raises(InputError, match=words):
        load_checkpoint(folder, device="cpu")


@pytest.mark.parametrize("damage", ["a layer gone", "a layer too many", "a row of NaN", "config of more layers"])
def test_the_model_refuses_by_itself(folder, damage):
    DAMAGES[damage][0](folder)
    for cls in (GeneCompassModel, GeneCompassForMaskedGeneModeling, GeneCompassForSequenceClassification):
        with pytest.raises(ValueError, match=DAMAGES[damage][1]):
            cls.from_pretrained(folder)


def test_a_head_that_should_be_there_and_is_not(folder):
    change_weights(folder, lambda tensors: tensors.pop("value_decoder.weight"))
    with pytest.raises(ValueError, match=r"value_decoder.weight.* is missing"):
        GeneCompassForMaskedGeneModeling.from_pretrained(folder)
    GeneCompassForSequenceClassification.from_pretrained(folder, num_labels=3)  # a new head may be


def test_new_labels_may_be_asked_for_but_no_new_encoder(folder):
    classifier = GeneCompassForSequenceClassification.from_pretrained(folder, num_labels=3)
    classifier.save_pretrained(folder)
    again = GeneCompassForSequenceClassification.from_pretrained(folder, num_labels=5, ignore_mismatched_sizes=True)
    assert again.classifier.weight.shape[0] == 5
    change_config(folder, intermediate_size=64)
    with pytest.raises(ValueError, match="another shape"):
        GeneCompassForSequenceClassification.from_pretrained(folder, ignore_mismatched_sizes=True)


def test_a_pickle_is_not_weights(folder):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"pytorch_model\.bin.*not loaded"):
        load_checkpoint(folder, device="cpu")
    with pytest.raises(OSError, match="safetensors"):
        GeneCompassModel.from_pretrained(folder)


def test_a_flipped_bit_is_found_by_the_manifest(folder):
    write_manifest(folder, "checkpoint", known_answer=False)
    check_checkpoint(folder)
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-100] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(InputError, match=r"model\.safetensors: not the file that manifest\.json describes"):
        load_checkpoint(folder, device="cpu")


def test_numbers_that_are_not_finite_are_not_handed_on(folder):
    model, _ = load_checkpoint(folder, device="cpu")
    with torch.no_grad():
        model.embeddings.norm.weight.fill_(torch.inf)  # loaded well, spoiled later, as by an overflow
    cell = {"input_ids": np.array([3, 4], np.int32), "values": np.ones(2, np.float32), "species": 0}
    with pytest.raises(InputError, match="NaN or infinite numbers, so nothing is written"):
        encode_cells(model, [cell])
