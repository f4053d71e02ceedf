import collections
import os
import pickle

import numpy as np
import pandas as pd
import pytest
from genecompass.tokenization.errors import InputError
from genecompass.tokenization.published import import_published
from genecompass.tokenization.safe_pickle import read_plain_pickle

TOKENS = {"<pad>": 0, "<mask>": 1, "ENSG00000000001": 2, "ENSG00000000002": 3, "ENSMUSG00000000001": 4,
          "ENSMUSG00000000002": 5, "ENSMUSG00000000003": 6}  # fmt: skip


def _dump(path, content, protocol=4):
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", range(6))
def test_plain_data_of_every_protocol(tmp_path, protocol):
    content = {
        "a": [1, 2.5, None, True], b"b": (1, (2,)), 3: {"s": {1, 2}}, "o": collections.OrderedDict(x=1),
        "n": np.float64(1.5), "i": np.int32(7),
    }  # fmt: skip
    read = read_plain_pickle(_dump(tmp_path / "x.pkl", content, protocol))
    assert read == content
    assert type(read["n"]) is float
    numbers = np.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(read_plain_pickle(_dump(tmp_path / "a.pkl", numbers, protocol)), numbers)


class _Evil:
    def __reduce__(self):
        return os.system, ("touch evil-was-here",)


@pytest.mark.parametrize(
    "content", [_Evil(), {"a": _Evil()}, print, np.array([{}]), pd.Series([1]), np.array("x")[()], np.dtype("O")]
)
def test_anything_that_could_run_is_refused(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="it was not loaded"):
        read_plain_pickle(_dump(tmp_path / "x.pkl", content))
    assert not (tmp_path / "evil-was-here").exists()


@pytest.mark.parametrize("raw", [b"", b"not a pickle", b"cos\nsystem\n(S'touch evil'\ntR.", b"\x80\x04P0\n."])
def test_damaged_and_hand_made_files(tmp_path, raw):
    (tmp_path / "x.pkl").write_bytes(raw)
    with pytest.raises(InputError, match=r"x\.pkl"):
        read_plain_pickle(tmp_path / "x.pkl")


def test_truncated_at_every_byte(tmp_path):
    whole = pickle.dumps({"gene": [1, 2.5, "x"], "n": np.float64(2)})
    for end in range(len(whole)):
        (tmp_path / "x.pkl").write_bytes(whole[:end])
        with pytest.raises(InputError):
            read_plain_pickle(tmp_path / "x.pkl")


def test_missing(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_plain_pickle(tmp_path / "x.pkl")


class TestPublished:
    def test_import(self, tmp_path):
        tokens = _dump(tmp_path / "tokens.pickle", TOKENS)
        homologs = _dump(tmp_path / "homologs.pickle", {4: 2, 5: 2})
        medians = _dump(tmp_path / "medians.pickle", {"ENSG00000000001": np.float64(2.5)})
        described = pd.DataFrame({"gene_id": ["ENSG00000000001"], "symbol": ["A"], "biotype": ["protein_coding"]})
        table = import_published(tokens, homologs, [medians], annotation=described)
        assert table.species == ("human", "mouse")
        assert table.token_in_cell.tolist() == [0, 1, 2, 3, 2, 2, 6]
        assert table.medians[2] == 2.5
        assert table.frame["symbol"][2] == "A"
        assert table.prior_rows("mouse")[2] == 4

    def test_shared_tokens_are_summed(self, tmp_path):
        import anndata
        from genecompass.tokenization.tokenize import tokenize_cells

        table = import_published(_dump(tmp_path / "t", TOKENS), _dump(tmp_path / "h", {4: 2, 5: 2}))
        names = ["ENSMUSG00000000001", "ENSMUSG00000000002", "ENSMUSG00000000003"]
        adata = anndata.AnnData(np.array([[1.0, 2.0, 1.0]]), var=pd.DataFrame(index=names))
        cell = tokenize_cells(adata, table, species="mouse")[0]
        assert cell["input_ids"].tolist() == [2, 6]
        assert cell["values"].tolist() == [2.0, 1.0]

    @pytest.mark.parametrize(
        ("tokens", "homologs", "message"),
        [
            ({"<pad>": 0, "<mask>": 1, "ENSG00000000001": 3}, {}, "tokens 0, 1, 2"),
            ({"ENSG00000000001": 0}, {}, "first"),
            ({"<pad>": 0, "<mask>": 1, "INS": 2}, {}, "'INS' is not an Ensembl id"),
            (TOKENS, {4: 99}, "expected token -> token below 7"),
            (TOKENS, {4: 5}, "must be a gene of another species"),
            ([1, 2], {}, "expected a dictionary, found list"),
        ],
    )
    def test_wrong_files(self, tmp_path, tokens, homologs, message):
        with pytest.raises(InputError, match=message):
            import_published(_dump(tmp_path / "t", tokens), _dump(tmp_path / "h", homologs) if homologs else None)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("dtype", ["<f8", ">f8", ">i4", "<i2", ">f4", "|b1", ">u8"])
def test_byte_orders_come_out_right(tmp_path, protocol, dtype):
    numbers = np.array([[1, 0, 3], [0, 5, 200 % 100]]).astype(dtype)
    read = read_plain_pickle(_dump(tmp_path / "a.pkl", {"a": numbers, "n": numbers[1, 1]}, protocol))
    np.testing.assert_array_equal(read["a"], numbers.astype(read["a"].dtype))
    assert read["n"] == numbers[1, 1]
    turned = read_plain_pickle(_dump(tmp_path / "f.pkl", np.asfortranarray(numbers), protocol))
    np.testing.assert_array_equal(turned, numbers.astype(turned.dtype))


HOSTILE = {
    "attributes of the reader": b"cnumpy\ndtype\n(S'__call__'\nI1\ndb.",
    "attributes of a maker": b"\x80\x02cnumpy.core.multiarray\nscalar\n}X\x05\x00\x00\x00_whatK\x01sb.",
    "attributes of a dictionary": b"\x80\x02ccollections\nOrderedDict\n)R}X\x01\x00\x00\x00xK\x01sb.",
    "a memo of sixteen billion": b"\x80\x02]r\xff\xff\xff\xff.",
    "a text of four gigabytes": b"\x80\x02X\xff\xff\xff\xffab.",
    "bytes of an exabyte": b"\x80\x04\x8e\x00\x00\x00\x00\x00\x00\x00\x10a.",
    "a number of many digits": b"\x80\x02\x8b\x00\x00\x10\x00" + b"\x7f" * (1 << 20) + b".",
    "a deep tuple": b"\x80\x02" + b")" + b"\x85" * 200_000 + b".",
    "a deep list": b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b".",
    "an array of terabytes": b"\x80\x02cnumpy._core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    b"(K\x01\x8a\x06\x00\x00\x00\x00\x00\x01\x85cnumpy\ndtype\nU\x02f8\x89\x88\x87R\x89U\x01xtb.",
    "tuples of tuples": b"\x80\x02}K\x01\x85" + b"q\x00h\x00\x86" * 60 + b"K\x01s.",
    "a set of tuples": b"\x80\x04\x8f(K\x01\x85" + b"\x942\x86" * 60 + b"\x90.",
    "an extension": b"\x80\x02\x82\x01.",
    "an instance": b"(S'x'\nios\nsystem\n.",
    "a new object": b"\x80\x02cos\nsystem\n)\x81.",
    "out-of-band data": b"\x80\x05\x97.",
    "a list in itself": b"\x80\x02]q\x00h\x00a.",
    "a maker as data": b"cnumpy\ndtype\n.",
    "more after the end": b"\x80\x02K\x01.K\x01.",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pickles_end_in_one_line(tmp_path, name):
    (tmp_path / "x.pkl").write_bytes(HOSTILE[name])
    with pytest.raises(InputError, match=r"x\.pkl"):
        read_plain_pickle(tmp_path / "x.pkl")
    # and leave the reader as it was
    assert read_plain_pickle(_dump(tmp_path / "y.pkl", {"n": np.float64(2)})) == {"n": 2.0}
