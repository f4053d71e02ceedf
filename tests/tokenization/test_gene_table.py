import numpy as np
import pandas as pd
import pytest
from genecompass.tokenization.errors import InputError
from genecompass.tokenization.files import atomic_path, sha256_of, write_json
from genecompass.tokenization.gene_table import GeneTable


@pytest.mark.parametrize("ending", ["parquet", "tsv.gz", "tsv"])
def test_round_trip_and_same_bytes(table, tmp_path, ending):
    path = tmp_path / f"genes.{ending}"
    table.write(path)
    first = path.read_bytes()
    again = GeneTable.read(path)
    pd.testing.assert_frame_equal(again.frame, table.frame, check_dtype=False)
    again.write(path)
    assert path.read_bytes() == first


def test_a_folder_stands_for_a_checkpoint(table, tmp_path):
    table.write(tmp_path / "genes.tsv.gz")
    assert GeneTable.read(tmp_path).vocab_size == table.vocab_size
    with pytest.raises(InputError, match="no gene table here"):
        GeneTable.read(tmp_path / "nowhere")


def test_species_tokens_and_prior_rows(table):
    assert table.species == ("human", "mouse")
    assert table.species_index("mouse") == 1
    assert table.token_in_cell[42] == 2
    rows = table.prior_rows("mouse")
    assert rows[2] == 42
    assert rows[2 + 25] == 2 + 25
    np.testing.assert_array_equal(table.prior_rows("human"), np.arange(table.vocab_size))


def test_unknown_medians_count_as_one():
    table = GeneTable.from_genes(pd.DataFrame({"gene_id": ["a", "b"], "species": "human", "median": [np.nan, 3.0]}))
    assert table.medians.tolist() == [1, 1, 1, 3]
    assert table.index.medians.tolist() == [1, 1, 1, 3]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.drop(columns="median"), "missing column 'median'"),
        (lambda f: f.iloc[:-1].assign(token=range(1, len(f))), "tokens must be 0, 1, 2"),
        (lambda f: f.assign(gene_id=["x", *f["gene_id"][1:]]), "must be <pad> and <mask>"),
        (lambda f: f.assign(gene_id=[*f["gene_id"][:-1], f["gene_id"][5]]), "appears twice"),
        (lambda f: f.assign(homolog_token=[*f["homolog_token"][:-1], 500]), "takes token 500, which must be"),
        (lambda f: f.assign(homolog_token=[*f["homolog_token"][:-1], 43]), "takes token 43, which must be"),
    ],
)
def test_wrong_tables(table, change, message):
    with pytest.raises(InputError, match=message):
        GeneTable(change(table.frame.copy()))


def test_a_table_file_without_a_column(table, tmp_path):
    table.frame.drop(columns="species").to_csv(tmp_path / "genes.tsv", sep="\t", index=False)
    with pytest.raises(InputError, match=r"genes\.tsv: missing column 'species'"):
        GeneTable.read(tmp_path / "genes.tsv")


class TestAtomic:
    def test_nothing_is_left_after_an_error(self, tmp_path):
        target = tmp_path / "deep" / "file.txt"
        target.parent.mkdir()
        target.write_text("old")
        with pytest.raises(RuntimeError), atomic_path(target) as temporary:
            temporary.write_text("half")
            raise RuntimeError
        assert target.read_text() == "old"
        assert [path.name for path in target.parent.iterdir()] == ["file.txt"]

    def test_folders(self, tmp_path):
        for content in ("first", "second"):
            with atomic_path(tmp_path / "out") as temporary:
                temporary.mkdir()
                (temporary / "a").write_text(content)
        assert (tmp_path / "out/a").read_text() == "second"
        assert len(list(tmp_path.iterdir())) == 1

    def test_json_and_checksum(self, tmp_path):
        write_json(tmp_path / "x.json", {"a": [1, "é"]})
        assert (tmp_path / "x.json").read_text(encoding="utf-8").endswith("}\n")
        assert sha256_of(tmp_path / "x.json") == sha256_of(tmp_path / "x.json")
        assert len(sha256_of(tmp_path / "x.json")) == 64
