"""A species added to a checkpoint: who shares a token, where rows start, and that nothing old changes."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from genecompass.dataset_scripts.new_species import add_species
from genecompass.inference import load_checkpoint
from genecompass.modeling_genecompass import GeneCompassConfig, GeneCompassForMaskedGeneModeling
from genecompass.tokenization.errors import InputError
from genecompass.tokenization.gene_table import GeneTable
from genecompass.tokenization.manifest import check_manifest
from genecompass.tokenization.processing_genecompass import GeneCompassProcessor
from scipy import sparse

import genecompass as gc

GENES = 40


def ids(prefix, numbers):
    return [f"{prefix}{number:011d}" for number in numbers]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A checkpoint of two species with a cell vector and a prior table."""
    folder = tmp_path_factory.mktemp("base") / "checkpoint"
    human = pd.DataFrame({"gene_id": ids("ENSG", range(GENES)), "species": "human", "median": 2.0})
    mouse = pd.DataFrame({"gene_id": ids("ENSMUSG", range(GENES)), "species": "mouse", "median": 3.0})
    mouse["homolog_gene_id"] = [ids("ENSG", [i])[0] if i < 20 else None for i in range(GENES)]
    table = GeneTable.from_genes(pd.concat([human, mouse], ignore_index=True).assign(symbol="", weight=1.0))
    config = GeneCompassConfig.tiny(
        vocab_size=table.vocab_size, species=["human", "mouse"], priors={"grn": 3}, cell_size=8, cell_axes=4,
        hidden_size=16, cell_profile=16, max_position_embeddings=32, initializer_range=0.5,
    )  # fmt: skip
    torch.manual_seed(0)
    model = GeneCompassForMaskedGeneModeling(config)
    model.set_prior_knowledge({"grn": torch.randn(table.vocab_size, 3)})
    model.set_prior_rows(torch.from_numpy(np.stack([table.prior_rows(name) for name in table.species])))
    with torch.no_grad():
        model.genecompass.cell_head.axes.normal_()
    model.save_pretrained(folder)
    GeneCompassProcessor.from_gene_table(table, max_length=32).save_pretrained(folder)
    return folder


@pytest.fixture
def fish(tmp_path):
    """Genes of a fish and their homologs: 0 to 9 one-to-one, 10 and 11 both of human 10, 12 of human 12 and 13."""
    genes = ids("ENSDARG", range(20))
    frame = pd.DataFrame({"gene_id": genes, "symbol": [f"g{i}" for i in range(20)], "biotype": "protein_coding"})
    frame.to_csv(tmp_path / "genes.tsv", sep="\t", index=False)
    pairs = [(i, i, 5) for i in range(10)] + [(10, 10, 9), (11, 10, 2), (12, 12, 3), (12, 13, 1), (13, 30, 1)]
    table = pd.DataFrame(
        [(ids("ENSG", [h])[0], genes[g], n) for g, h, n in pairs], columns=["human_gene_id", "gene_id", "n_support"]
    )
    table.to_csv(tmp_path / "homologs.tsv", sep="\t", index=False)
    return {"annotation": tmp_path / "genes.tsv", "homologs": [tmp_path / "homologs.tsv"]}


def cells(prefix, numbers, seed=0):
    counts = np.random.default_rng(seed).poisson(1.2, (12, len(numbers))).astype(np.float32) + 0
    counts[:, 0] += 1
    return ad.AnnData(sparse.csr_matrix(counts), var=pd.DataFrame(index=ids(prefix, numbers)))


def test_tokens_rows_and_slot(base, fish, tmp_path):
    added = add_species(base, tmp_path / "new", species="zebrafish", **fish)
    assert added.by_tier == {"shared": 11, "homologs": 3, "none": 6}
    before, table = GeneTable.read(base), GeneTable.read(tmp_path / "new")
    assert table.species == ("human", "mouse", "zebrafish")
    pd.testing.assert_frame_equal(table.frame.iloc[: len(before)], before.frame, check_dtype=False)
    own = table.frame.set_index("gene_id")
    assert own.loc[ids("ENSDARG", [3])[0], "homolog_token"] == own.loc[ids("ENSG", [3])[0], "token"]
    old, new = (GeneCompassForMaskedGeneModeling.from_pretrained(folder) for folder in (base, tmp_path / "new"))
    words, start = (model.genecompass.embeddings.word_embeddings.weight for model in (old, new))
    assert torch.equal(start[: len(before)], words)
    row = own.loc[ids("ENSDARG", [12])[0], "token"]
    human = [own.loc[name, "token"] for name in ids("ENSG", [12, 13])]
    torch.testing.assert_close(start[row], 0.75 * words[human[0]] + 0.25 * words[human[1]])
    alone = own.loc[ids("ENSDARG", [19])[0], "token"]
    assert torch.isfinite(start[alone]).all()
    assert start[alone].std() > 0.1
    slots = new.genecompass.species_embeddings.weight
    assert torch.equal(slots[2], slots[0])
    assert check_manifest(tmp_path / "new") == []


def test_old_species_are_bit_identical_and_the_new_one_is_read(base, fish, tmp_path):
    add_species(base, tmp_path / "new", species="zebrafish", like="mouse", **fish)
    for prefix, species in (("ENSG", "human"), ("ENSMUSG", "mouse")):
        folders = (str(base), str(tmp_path / "new"))
        one, other = (gc.embed(cells(prefix, range(GENES)), name, species, device="cpu") for name in folders)
        np.testing.assert_array_equal(one.obsm["X_genecompass"], other.obsm["X_genecompass"])
        np.testing.assert_array_equal(one.varm["genecompass"], other.varm["genecompass"])
    swum = gc.embed(cells("ENSDARG", range(20)), str(tmp_path / "new"), "zebrafish", device="cpu")
    assert np.isfinite(swum.obsm["X_genecompass"]).all()
    assert load_checkpoint(tmp_path / "new", device="cpu")[0].config.species == ["human", "mouse", "zebrafish"]


def test_the_same_seed_gives_the_same_rows(base, fish, tmp_path):
    for name in ("a", "b"):
        add_species(base, tmp_path / name, species="zebrafish", **fish)
    assert (tmp_path / "a/model.safetensors").read_bytes() == (tmp_path / "b/model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"species": "mouse"}, "'mouse' is in this checkpoint already"),
        ({"like": "yeti"}, "like='yeti'"),
        ({"min_support": 99}, "no pair of homologs fits .* min_support=99"),
    ],
)
def test_what_cannot_be_is_said(base, fish, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        add_species(base, tmp_path / "new", **{"species": "zebrafish", **fish, **changes})
    assert not (tmp_path / "new").exists()


def test_files_of_another_organism_are_refused(base, fish, tmp_path):
    pd.DataFrame({"gene_id": ids("ENSG", range(5)), "symbol": "", "biotype": ""}).to_csv(tmp_path / "h.tsv", sep="\t")
    with pytest.raises(InputError, match="5 of 5 genes are human genes, not zebrafish"):
        add_species(base, tmp_path / "new", species="zebrafish", **{**fish, "annotation": tmp_path / "h.tsv"})
    pd.DataFrame({"a": ["ENSRNOG1"], "b": ["ENSG9"]}).to_csv(tmp_path / "other.tsv", sep="\t", index=False)
    with pytest.raises(InputError, match="no column of ids of the annotation"):
        add_species(base, tmp_path / "new", species="zebrafish", **{**fish, "homologs": [tmp_path / "other.tsv"]})
