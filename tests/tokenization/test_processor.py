import numpy as np
import pandas as pd
import pytest
import torch
from genecompass.tokenization.processing_genecompass import GeneCompassProcessor
from genecompass.tokenization.tokenize import tokenize_cells
from transformers import AutoTokenizer


@pytest.fixture(scope="module")
def processor(table):
    return GeneCompassProcessor.from_gene_table(table)


def test_every_form_of_counts_gives_the_same(adata, table, processor):
    cells = tokenize_cells(adata, table, species="human")
    genes = adata.var_names
    dense = adata.X.toarray()
    pairs = [(genes[row > 0], row[row > 0]) for row in dense]
    for given, names in ((adata.X, genes), (dense, genes), (torch.from_numpy(dense), genes), (pairs, None)):
        batch = processor(given, genes=names, species="human", return_tensors="pt")
        assert batch["input_ids"].dtype == torch.int64
        assert batch["values"].dtype == torch.float32
        for row, cell in enumerate(cells):
            n = len(cell["input_ids"])
            np.testing.assert_array_equal(batch["input_ids"][row, :n], cell["input_ids"])
            np.testing.assert_array_equal(batch["values"][row, :n], cell["values"])
            assert batch["attention_mask"][row].sum() == n
    one = processor(dense[0], genes=genes, species="human", return_tensors="np")
    assert one["input_ids"].shape[0] == 1


def test_species_per_cell(adata, processor):
    labels = ["human", "mouse"] * 12 + ["human"]
    batch = processor(adata.X, genes=adata.var_names, species=labels, gene_species="human", return_tensors="np")
    assert batch["species"].tolist() == [0, 1] * 12 + [0]
    alone = processor(adata.X[1], genes=adata.var_names, species="mouse", gene_species="human", return_tensors="np")
    np.testing.assert_array_equal(batch["values"][1][batch["attention_mask"][1] == 1], alone["values"][0])


def test_padding(adata, processor):
    batch = processor(adata.X, genes=adata.var_names, species="human", return_tensors="np", pad_to_multiple_of=16)
    assert batch["input_ids"].shape[1] % 16 == 0
    full = processor(adata.X, genes=adata.var_names, species="human", return_tensors="np", padding="max_length")
    assert full["input_ids"].shape == (25, 2048)
    lists = processor(adata.X, genes=adata.var_names, species="human")
    assert len(lists["input_ids"][0]) == lists["attention_mask"][0].sum()


def test_decode_tells_genes_and_counts(adata, table, processor):
    batch = processor(adata.X, genes=adata.var_names, species="mouse", gene_species="human", return_tensors="pt")
    tidy = pd.DataFrame(processor.decode(batch))
    assert list(tidy.columns) == ["cell", "rank", "token", "gene_id", "symbol", "species", "value", "count"]
    first = tidy[tidy["cell"] == 0].set_index("symbol")["count"]
    row = adata.X[0].toarray().ravel()
    assert first["Hgene0"] == row[0]
    assert first.sum() == pytest.approx(row.sum(), abs=0.1)
    assert tidy[tidy["symbol"] == "Hgene0"]["token"].iloc[0] == 2


def test_round_trip(adata, processor, tmp_path):
    processor.save_pretrained(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert {"genes.tsv.gz", "tokenizer.json", "processor_config.json", "processing_genecompass.py"} <= names
    assert {"feature_extraction_genecompass.py", "gene_index.py", "ranking.py"} <= names
    again = GeneCompassProcessor.from_pretrained(tmp_path)
    assert again.gene_table.keys() == processor.gene_table.keys()
    assert again.gene_table["gene_id"] == processor.gene_table["gene_id"]
    before = processor(adata.X, genes=adata.var_names, species="human", return_tensors="np")
    after = again(adata.X, genes=adata.var_names, species="human", return_tensors="np")
    for name in before:
        np.testing.assert_array_equal(before[name], after[name])
    assert GeneCompassProcessor.from_pretrained(tmp_path, max_length=7).feature_extractor.max_length == 7


def test_options_travel(table, adata, tmp_path):
    options = {"max_length": 9, "library_size": 1000.0, "min_genes": 2}
    GeneCompassProcessor.from_gene_table(table, **options).save_pretrained(tmp_path)
    again = GeneCompassProcessor.from_pretrained(tmp_path).feature_extractor
    assert {name: getattr(again, name) for name in options} == options
    scaled = again(adata.X, genes=adata.var_names, species="human")
    expected = tokenize_cells(adata, table, species="human", max_length=9, library_size=1000.0)
    np.testing.assert_array_equal(scaled["values"][0], expected[0]["values"])


def test_tokenizer_gives_own_tokens(processor, table, tmp_path):
    processor.save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    mouse = "ENSMUSG00000000003"
    assert tokenizer.convert_tokens_to_ids(mouse) == 45
    assert tokenizer("ENSG00000000000 ENSG00000000001")["input_ids"] == [2, 3]
    assert tokenizer.convert_ids_to_tokens([0, 1]) == ["<pad>", "<mask>"]
    assert len(tokenizer) == table.vocab_size


class TestBadInput:
    @pytest.mark.parametrize(
        ("value", "message"),
        [(np.nan, "cell 2 has value nan: not a number"), (-1, "negative"), (1.5, "not whole")],
    )
    def test_values(self, adata, processor, value, message):
        dense = adata.X.toarray()
        dense[2, 4] = value
        with pytest.raises(ValueError, match=message):
            processor(dense, genes=adata.var_names, species="human")

    def test_shapes_and_names(self, adata, processor):
        with pytest.raises(ValueError, match="counts have 40 columns, but there are 39 genes"):
            processor(adata.X, genes=adata.var_names[:-1], species="human")
        with pytest.raises(ValueError, match="genes is missing"):
            processor(adata.X, species="human")
        with pytest.raises(ValueError, match="species is missing: one of human, mouse"):
            processor(adata.X, genes=adata.var_names)
        with pytest.raises(ValueError, match="unknown species 'rat'"):
            processor(adata.X, genes=adata.var_names, species="rat")
        with pytest.raises(ValueError, match="2 species for 25 cells"):
            processor(adata.X, genes=adata.var_names, species=["human", "mouse"])
        with pytest.raises(ValueError, match="none of the 40 genes"):
            processor(adata.X, genes=[f"x{i}" for i in range(40)], species="human")

    def test_empty_cell(self, adata, processor):
        dense = adata.X.toarray()
        dense[5] = 0
        with pytest.raises(ValueError, match="cell 5 expresses 0 known genes"):
            processor(dense, genes=adata.var_names, species="human")
