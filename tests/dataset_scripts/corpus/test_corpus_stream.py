"""The stream: every cell once, in an order that can be restored, whoever reads."""

import json
import os
import subprocess
import sys
from collections import Counter

import anndata as ad
import fsspec
import numpy as np
import pytest
from genecompass.dataset_scripts.corpus import catalogue
from genecompass.dataset_scripts.corpus.builder import BuildOptions, build
from genecompass.dataset_scripts.corpus.local import CorpusDataset
from genecompass.dataset_scripts.corpus.position import merge_states
from genecompass.dataset_scripts.corpus.retry import Patience
from genecompass.dataset_scripts.corpus.stream import open_corpus, padded
from genecompass.tokenization.errors import InputError
from genecompass.tokenization.tokenize import tokenize_cells
from torch.utils.data import DataLoader

BATCHES = {"batch_tokens": 4096, "pool_blocks": 1}


def ids(rows):
    return [(row["dataset"], row["cell_id"]) for row in rows]


def cells_of(batches):
    return [name for batch in batches for name in ids(batch.rows)]


def one_batch(batch):
    """Keeps a DataLoader from turning our batches into its own."""
    return batch


@pytest.fixture(scope="module")
def everything(inputs):
    names = [(n, cell) for n in "abc" for cell in ad.read_h5ad(inputs / f"{n}.h5ad").obs_names]
    return Counter(names)


def test_rows_are_what_tokenising_the_source_gives(corpus, inputs, table):
    rows = {key: row for row in open_corpus(corpus, table) for key in ids([row])}
    for name, species in (("a", "human"), ("b", "mouse")):
        source = ad.read_h5ad(inputs / f"{name}.h5ad")
        expected = tokenize_cells(source, table, species=species)
        for number, cell in enumerate(source.obs_names):
            row = rows[name, cell]
            np.testing.assert_array_equal(row["input_ids"], expected[number]["input_ids"])
            np.testing.assert_array_equal(row["values"], expected[number]["values"])
            assert row["input_ids"].dtype == np.int32
            assert row["species"] == table.species_index(species)


def test_every_cell_once_shuffled_by_seed_and_epoch(corpus, table, everything):
    stream = open_corpus(corpus, table, seed=1)
    first = ids(stream)
    assert Counter(first) == everything
    assert ids(stream) == first
    assert ids(open_corpus(corpus, table, seed=1)) == first
    assert ids(open_corpus(corpus, table, seed=2)) != first
    stream.set_epoch(1)
    second = ids(stream)
    assert second != first
    assert Counter(second) == everything
    assert len({dataset for dataset, _ in first[:200]}) > 1
    plain = ids(open_corpus(corpus, table, shuffle=False))
    assert plain == ids(open_corpus(corpus, table, shuffle=False, seed=5))
    assert [d for d, _ in plain[-900:]] == ["b"] * 900


def test_max_length_and_columns(corpus, table):
    row = next(iter(open_corpus(corpus, table, max_length=16, columns=("cell_id", "tissue", "n_counts"))))
    assert len(row["input_ids"]) == 16
    assert sorted(row) == ["cell_id", "input_ids", "n_counts", "species", "tissue", "values"]
    with pytest.raises(InputError, match="no column 'colour'"):
        open_corpus(corpus, table, columns=("colour",))


def test_batches_hold_like_lengths_within_the_budget(corpus, table, everything):
    batches = list(open_corpus(corpus, table, batch_tokens=4096, batch_cells=30))
    assert Counter(cells_of(batches)) == everything
    for batch in batches:
        lengths = [len(row["input_ids"]) for row in batch.rows]
        assert len(batch.rows) <= 30
        assert max(lengths) * len(lengths) <= 4096
    assert all(len(b.rows) <= 7 for b in open_corpus(corpus, table, batch_cells=7))


@pytest.mark.parametrize("workers", [0, 2, 3])
def test_workers_and_ranks_share_without_overlap(workers, corpus, table, everything):
    seen = Counter()
    for rank in range(2):
        stream = open_corpus(corpus, table, rank=rank, world_size=2, pool_blocks=1)
        mine = ids(DataLoader(stream, batch_size=None, num_workers=workers))
        assert mine
        seen += Counter(mine)
    assert seen == everything


READ_A_SHARE = """
import json, sys
import torch.distributed as dist
from genecompass.dataset_scripts.corpus.stream import open_corpus, padded
from torch.utils.data import DataLoader

corpus, table, out = sys.argv[1:]
dist.init_process_group("gloo")
rank, world_size = dist.get_rank(), dist.get_world_size()
stream = open_corpus(corpus, table, rank=rank, world_size=world_size, batch_tokens=4096, pool_blocks=1)
seen = []
for batch in DataLoader(stream, batch_size=None, num_workers=1, collate_fn=padded):
    seen += zip(batch["dataset"], batch["cell_id"], strict=True)
    stream.consumed(batch["stream_position"])
everyone = [None] * world_size
dist.all_gather_object(everyone, {"cells": seen, "state": stream.state_dict()})
if rank == 0:
    json.dump(everyone, open(out, "w"))
dist.destroy_process_group()
"""


@pytest.fixture(scope="module")
def many_shards(inputs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("many") / "corpus"
    build(inputs / "inputs.tsv", folder, options=BuildOptions(cells_per_shard=256))
    assert len(list(folder.glob("data/*/*.parquet"))) == 9 + 4
    return folder


def test_two_processes_of_torchrun_read_every_cell_once(many_shards, table, everything, tmp_path):
    (tmp_path / "read.py").write_text(READ_A_SHARE)
    table.write(tmp_path / "genes.tsv.gz")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    arguments = [tmp_path / "read.py", many_shards, tmp_path / "genes.tsv.gz", tmp_path / "seen.json"]
    subprocess.run([*torchrun, *map(str, arguments)], check=True, env=os.environ | {"HF_HUB_OFFLINE": "1"}, timeout=120)
    shares = json.loads((tmp_path / "seen.json").read_text())
    seen = [tuple(cell) for share in shares for cell in share["cells"]]
    assert min(len(share["cells"]) for share in shares) > 1000
    assert Counter(seen) == everything, "each cell once, none twice"
    after = open_corpus(many_shards, table, **BATCHES)
    after.load_state_dict(merge_states([share["state"] for share in shares]))
    assert list(after) == [], "the epoch is read to its end"


@pytest.mark.parametrize("workers", [0, 2])
def test_padded_batches_of_two_workers(workers, many_shards, table, everything):
    stream = open_corpus(many_shards, table, **BATCHES)
    rows = {key: row for row in open_corpus(many_shards, table) for key in ids([row])}
    seen = []
    for batch in DataLoader(stream, batch_size=None, num_workers=workers, collate_fn=padded):
        cells = list(zip(batch["dataset"], batch["cell_id"], strict=True))
        for number, (name, length) in enumerate(zip(cells, batch["attention_mask"].sum(1).tolist(), strict=True)):
            row = rows[name]
            np.testing.assert_array_equal(batch["input_ids"][number, :length].numpy(), row["input_ids"])
            np.testing.assert_array_equal(batch["values"][number, :length].numpy(), row["values"])
            assert batch["species"][number] == row["species"]
        assert batch["input_ids"].numel() <= 4096 + 8 * len(cells)
        seen += cells
        stream.consumed(batch["stream_position"])
    assert Counter(seen) == everything


def test_resume_by_row_is_exact_also_twice(corpus, table):
    whole = ids(open_corpus(corpus, table, seed=3))
    got, state = [], None
    for stop in (37, 1200, 999):
        stream = open_corpus(corpus, table, seed=3)
        if state is not None:
            stream.load_state_dict(json.loads(json.dumps(state)))
        iterator = iter(stream)
        got += [ids([next(iterator)])[0] for _ in range(stop)]
        state = stream.state_dict()
    stream = open_corpus(corpus, table, seed=3)
    stream.load_state_dict(state)
    assert got + ids(stream) == whole


def consume(stream, n, workers):
    """Use n batches, while workers read ahead; the position follows what was used."""
    used = []
    for batch in DataLoader(stream, batch_size=None, num_workers=workers, collate_fn=one_batch):
        if len(used) == n:
            break
        used.append(batch)
        stream.consumed(batch.stream_position)
    return used


@pytest.mark.parametrize("workers", [0, 2])
def test_same_number_of_workers_same_batches(workers, corpus, table):
    whole = consume(open_corpus(corpus, table, **BATCHES), 10**9, workers)
    first = open_corpus(corpus, table, **BATCHES)
    used = consume(first, 3, workers)
    second = open_corpus(corpus, table, **BATCHES)
    second.load_state_dict(first.state_dict())
    used += consume(second, 4, workers)
    third = open_corpus(corpus, table, **BATCHES)
    third.load_state_dict(json.loads(json.dumps(second.state_dict())))
    used += consume(third, 10**9, workers)
    assert Counter(cells_of(used)) == Counter(cells_of(whole))
    # A worker that runs dry early lets the others' turns move up; until then the order is the very same.
    assert [cells_of([b]) for b in used[:12]] == [cells_of([b]) for b in whole[:12]]
    assert sorted(cells_of([b]) for b in used) == sorted(cells_of([b]) for b in whole)


@pytest.mark.parametrize(("before", "after"), [((1, 2), (1, 0)), ((1, 0), (2, 2)), ((2, 1), (1, 3)), ((2, 0), (3, 0))])
def test_another_number_of_readers_no_cell_lost_or_doubled(before, after, corpus, table, everything):
    used, states = [], []
    for rank in range(before[0]):
        stream = open_corpus(corpus, table, rank=rank, world_size=before[0], **BATCHES)
        used += consume(stream, 5 + rank, before[1])
        states.append(stream.state_dict())
    middle = merge_states(states)
    states = []
    for rank in range(after[0]):
        stream = open_corpus(corpus, table, rank=rank, world_size=after[0], **BATCHES)
        stream.load_state_dict(middle)
        used += consume(stream, 2, after[1])
        states.append(stream.state_dict())
    last = open_corpus(corpus, table, **BATCHES)
    last.load_state_dict(merge_states(states))
    used += list(last)
    assert Counter(cells_of(used)) == everything


def test_a_state_of_one_rank_does_not_serve_another_number(corpus, table):
    stream = open_corpus(corpus, table, rank=0, world_size=2, **BATCHES)
    next(iter(stream))
    other = open_corpus(corpus, table, **BATCHES)
    other.load_state_dict(stream.state_dict())
    with pytest.raises(InputError, match="merge"):
        next(iter(other))
    with pytest.raises(InputError, match=r"ranks \[0\]"):
        merge_states([stream.state_dict()])
    with pytest.raises(InputError, match="another corpus"):
        open_corpus(corpus, table, seed=9, **BATCHES).load_state_dict(stream.state_dict())


def test_species_shares(corpus, table):
    shares = {"human": 0.25, "mouse": 0.75}
    rows = list(open_corpus(corpus, table, species_probabilities=shares, pool_blocks=2))
    human = Counter(ids(row for row in rows if row["species"] == 0))
    mouse = Counter(ids(row for row in rows if row["species"] == 1))
    assert len(human) == 2200, "the species with the most cells for its share is read once"
    assert set(human.values()) == {1}
    assert len(mouse) == 900
    assert abs(sum(mouse.values()) / len(rows) - 0.75) < 0.03
    half = [row["species"] for row in rows[: len(rows) // 2]]
    assert abs(np.mean(half) - 0.75) < 0.1
    with pytest.raises(InputError, match="species_probabilities"):
        list(open_corpus(corpus, table, species_probabilities={"human": 1.0}))


def test_selection_reads_no_more_than_it_needs(corpus, table, monkeypatch, inputs):
    read = []
    original = catalogue.Corpus.read

    def spy(self, shard, row_group, columns):
        read.append((shard.path, tuple(columns)))
        return original(self, shard, row_group, columns)

    monkeypatch.setattr(catalogue.Corpus, "read", spy)
    rows = list(open_corpus(corpus, table, select={"species": "mouse"}))
    assert len(rows) == 900
    assert all(path.startswith("data/mouse/") for path, _ in read)
    read.clear()
    rows = list(open_corpus(corpus, table, select={"tissue": "liver"}, exclude={"dataset": ["b", "a"]}))
    source = ad.read_h5ad(inputs / "c.h5ad")
    assert {row["cell_id"] for row in rows} == set(source.obs_names[source.obs["tissue"] == "liver"])
    assert {row["dataset"] for row in rows} == {"c"}
    read.clear()
    rare = source.obs_names[3]
    assert ids(open_corpus(corpus, table, select={"cell_id": rare})) == [("c", rare)]
    assert sum("genes" in columns for _, columns in read) == 1, "counts are read where the cell is, and only there"
    with pytest.raises(InputError, match="no cell has tissue 'brain'"):
        open_corpus(corpus, table, select={"tissue": "brain"})
    with pytest.raises(InputError, match="leaves no cell"):
        open_corpus(corpus, table, exclude={"species": ["human", "mouse"]})


def test_by_number(corpus, table, everything):
    cells = CorpusDataset(corpus, table)
    assert len(cells) == 3100
    assert Counter(ids(cells[i] for i in range(len(cells)))) == everything
    lung = CorpusDataset(corpus, table, select={"tissue": "lung"}, columns=("tissue",))
    assert {lung[i]["tissue"] for i in range(0, len(lung), 50)} == {"lung"}
    assert lung[-1]["input_ids"].tolist() == lung[len(lung) - 1]["input_ids"].tolist()
    with pytest.raises(IndexError):
        lung[len(lung)]


def test_other_storage_and_transient_failures(corpus, table, everything, monkeypatch):
    memory = fsspec.filesystem("memory")
    memory.put(str(corpus), "/flaky", recursive=True)
    opened = type(memory)._open
    failures = iter([True, False, True, True] + [False, False, True] * 1000)

    def flaky(self, *args, **kwargs):
        if next(failures):
            raise ConnectionResetError("peer went away")
        return opened(self, *args, **kwargs)

    monkeypatch.setattr(type(memory), "_open", flaky)
    patience = Patience(attempts=4, wait=0)
    rows = ids(open_corpus("memory://flaky", table, patience=patience))
    assert Counter(rows) == everything
    monkeypatch.setattr(type(memory), "_open", lambda *a, **k: (_ for _ in ()).throw(ConnectionResetError("gone")))
    with pytest.raises(OSError, match="after 4 tries"):
        open_corpus("memory://flaky", table, patience=patience)


def test_vocabulary_that_does_not_fit(corpus, table):
    human = type(table)(table.frame[table.frame["species"] != "mouse"].reset_index(drop=True))
    with pytest.raises(InputError, match="unknown species 'mouse'"):
        open_corpus(corpus, human)
    assert len(list(open_corpus(corpus, human, select={"species": "human"}))) == 2200


def test_cells_stored_in_orthologs_read_as_their_own_species(make_cells, manifest_of, tmp_path):
    import pandas as pd
    from genecompass.tokenization.gene_table import GeneTable

    genes = pd.DataFrame({"gene_id": ["ENSG00000000001", "ENSMUSG00000000001"], "symbol": ["INS", "Ins2"],
                          "species": ["human", "mouse"], "median": [1.0, 3.0],
                          "homolog_gene_id": [None, "ENSG00000000001"]})  # fmt: skip
    cells = ad.AnnData(np.array([[9]]), var=pd.DataFrame(index=["INS"]))
    cells.write_h5ad(tmp_path / "o.h5ad")
    row = {"path": "o.h5ad", "species": "mouse", "gene_species": "human"}
    build(manifest_of(tmp_path / "m.tsv", [row]), tmp_path / "out")
    got = next(iter(open_corpus(tmp_path / "out", GeneTable.from_genes(genes))))
    assert got["input_ids"].tolist() == [2], "the human token"
    assert got["values"].tolist() == [2.0], "by the mouse median: log2(1 + 9 / 3)"
    assert got["species"] == 1
