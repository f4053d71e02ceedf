import numpy as np
import pytest
import torch
from genecompass.tokenization.batching import batches_by_tokens, pack_cells, pad_cells
from hypothesis import given, settings
from hypothesis import strategies as st


def _rows(lengths, **extra):
    rows = []
    for i, n in enumerate(lengths):
        row = {"input_ids": np.arange(2, 2 + n, dtype=np.int32), "values": np.ones(n, np.float32)}
        row |= {"species": i % 2, "cell_id": "x" * n}
        rows.append(row | {name: make(n) for name, make in extra.items()})
    return rows


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 300), min_size=0, max_size=80),
    budget=st.integers(1, 1000),
    most=st.none() | st.integers(1, 9),
    seed=st.none() | st.integers(0, 9),
)
def test_every_cell_once_and_no_batch_too_large(lengths, budget, most, seed):
    batches = batches_by_tokens(lengths, budget, max_cells=most, shuffle_seed=seed)
    assert sorted(np.concatenate(batches).tolist() if batches else []) == list(range(len(lengths)))
    for batch in batches:
        longest = max(lengths[i] for i in batch)
        assert len(batch) == 1 or longest * len(batch) <= budget
        assert most is None or len(batch) <= most


def test_little_padding_and_longest_first():
    lengths = np.random.default_rng(0).integers(200, 2000, 500)
    for seed in (None, 1):
        batches = batches_by_tokens(lengths, 16_000, shuffle_seed=seed)
        slots = sum(lengths[b].max() * len(b) for b in batches)
        assert lengths.sum() / slots > 0.95
    assert lengths.argmax() in batches_by_tokens(lengths, 16_000)[0]


def test_seed_decides():
    lengths = np.random.default_rng(0).integers(1, 100, 60)

    def flat(seed):
        return [batch.tolist() for batch in batches_by_tokens(lengths, 500, shuffle_seed=seed)]

    assert flat(1) == flat(1)
    assert flat(1) != flat(2)


def test_pad():
    rows = _rows(
        [3, 5],
        labels=lambda n: np.full(n, 7),
        labels_values=lambda n: np.ones(n, np.float64),
        value_targets=lambda n: np.ones(n, bool),
        position_ids=lambda n: np.arange(n),
    )
    batch = pad_cells(rows)
    assert {k: v.dtype for k, v in batch.items()} == {
        "input_ids": torch.int64, "values": torch.float32, "labels": torch.int64, "labels_values": torch.float32,
        "value_targets": torch.bool, "position_ids": torch.int64, "attention_mask": torch.int64, "species": torch.int64,
    }  # fmt: skip
    assert batch["input_ids"].shape == (2, 8)
    assert batch["attention_mask"].sum(1).tolist() == [3, 5]
    assert batch["labels"][0].tolist() == [7] * 3 + [-100] * 5
    assert not batch["value_targets"][0, 3:].any()
    assert batch["position_ids"][0].tolist() == [0, 1, 2, 0, 0, 0, 0, 0]
    assert batch["species"].tolist() == [0, 1]
    assert pad_cells(rows, length=6, pad_to_multiple_of=1)["values"].shape == (2, 6)
    with pytest.raises(ValueError, match="a cell of 5 genes does not fit the width 4"):
        pad_cells(rows, length=4)


def test_pack():
    batch = pack_cells(_rows([3, 5], labels=lambda n: np.full(n, n)))
    assert batch["input_ids"].tolist() == [[2, 3, 4, 2, 3, 4, 5, 6]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1, 2, 3, 4]]
    assert batch["cell_lengths"].tolist() == [3, 5]
    assert batch["labels"].tolist() == [[3] * 3 + [5] * 5]
    own = pack_cells(_rows([2], position_ids=lambda n: np.full(n, 9)))
    assert own["position_ids"].tolist() == [[9, 9]]


def test_a_length_one_species_array_is_not_a_gene_array():
    row = {"input_ids": [5], "values": [1.0], "species": np.array(1)}
    assert pad_cells([row])["species"].tolist() == [1]


@pytest.mark.parametrize("make", [pad_cells, pack_cells])
def test_nothing(make):
    with pytest.raises(ValueError, match="no cells"):
        make([])


def test_bad_budget():
    with pytest.raises(ValueError, match="max_tokens=0"):
        batches_by_tokens([1], 0)
