import functools

import numpy as np
import pytest
from genecompass.tokenization.errors import InputError
from genecompass.training.pretraining.masking import CellMasker, MaskedGeneCollator, token_pools
from genecompass.training.pretraining.sources import MemoryCells
from genecompass.training.pretraining.stream import (
    CELL_IDS,
    POSITION,
    TokenBudgetStream,
    collect_cells,
    is_held_out,
    is_trained_on,
    position_of_cell,
)
from torch.utils.data import DataLoader


@pytest.fixture
def make(toy):
    masker = CellMasker(token_pools(toy.make_table()), unknown_rank_position=64)
    rows = toy.make_cells()

    def build(rank=0, world_size=1, **settings):
        cells = MemoryCells(rows, seed=7, rank=rank, world_size=world_size)
        options = {"max_tokens": 320, "pool_cells": 30, "seed": 7, **settings}
        return TokenBudgetStream(cells, MaskedGeneCollator(masker), **options)

    return build


def take(stream, count, workers=0):
    loader = DataLoader(stream, batch_size=None, num_workers=workers)
    iterator = iter(loader)
    return [next(iterator) for _ in range(count)]


def cells_of(batches):
    return [cell for batch in batches for cell in batch[CELL_IDS]]


def test_batches_keep_the_token_budget_and_every_cell_comes_once_an_epoch(make):
    batches = []
    for batch in make():
        if batch[POSITION]["epoch"] == 1:
            break
        batches.append(batch)
    assert max(batch["input_ids"].numel() for batch in batches) <= 320
    found = cells_of(batches)
    assert len(found) == len(set(found)) == 160


def test_epochs_differ_in_order_and_masks(make):
    stream, first, second = iter(make()), {}, {}
    for batch in stream:
        target = {0: first, 1: second}.get(batch[POSITION]["epoch"])
        if target is None:
            break
        for number, cell in enumerate(batch[CELL_IDS]):
            target[cell] = batch["labels"][number][batch["attention_mask"][number] == 1].tolist()
    assert list(first) != list(second)
    assert first.keys() == second.keys()
    assert sum(first[cell] != second[cell] for cell in first) > 150


def test_masks_do_not_depend_on_the_batch_a_cell_is_in(make):
    def labels(batches):
        return {
            cell: batch["labels"][number][batch["attention_mask"][number] == 1].tolist()
            for batch in batches
            for number, cell in enumerate(batch[CELL_IDS])
        }

    small, large = labels(take(make(), 8)), labels(take(make(max_tokens=900), 4))
    shared = small.keys() & large.keys()
    assert len(shared) > 20
    assert all(small[cell] == large[cell] for cell in shared)


@pytest.mark.parametrize("workers", [0, 2])
def test_restored_stream_goes_on_where_it_stood(make, workers):
    whole = take(make(), 60, workers)
    for stop in (1, 7, 31):
        positions = {}
        for batch in whole[:stop]:
            positions[str(batch[POSITION]["worker"])] = batch[POSITION]
        next_worker = (whole[stop - 1][POSITION]["worker"] + 1) % max(workers, 1)
        stream = make()
        stream.restore(positions, next_worker)
        again = take(stream, 60 - stop, workers)
        assert [batch[CELL_IDS] for batch in again] == [batch[CELL_IDS] for batch in whole[stop:]]
        assert all((a["labels"] == b["labels"]).all() for a, b in zip(again, whole[stop:], strict=True))


def test_ranks_and_workers_share_an_epoch_out(make):
    found = []
    for rank in range(2):
        for batch in take(make(rank=rank, world_size=2), 40, workers=2):
            if batch[POSITION]["epoch"] == 0:
                found += batch[CELL_IDS]
    assert len(found) == len(set(found)) == 160


def test_held_out_cells_are_never_trained_on_and_shares_are_nested(toy):
    rows = toy.make_cells(2000)
    held_out = {row["cell_id"] for row in rows if is_held_out(row, 0.1)}
    assert abs(len(held_out) / 2000 - 0.1) < 0.03
    shares = [{r["cell_id"] for r in rows if is_trained_on(r, 0.1, share)} for share in (0.1, 0.5, 1.0)]
    assert shares[0] < shares[1] < shares[2]
    assert not shares[2] & held_out
    assert len(shares[2] | held_out) == 2000
    assert abs(len(shares[1]) / len(shares[2]) - 0.5) < 0.05


def test_place_of_a_cell_is_uniform_and_fixed():
    places = np.array([position_of_cell(f"cell {number}") for number in range(3000)])
    assert abs(np.mean(places) - 0.5) < 0.02
    assert position_of_cell("a") == position_of_cell("a")


def test_a_process_without_cells_says_so(make):
    with pytest.raises(InputError, match="no cell to train on"):
        next(iter(make(keep=lambda row: False)))


def test_collecting_stops_as_soon_as_all_is_found(toy):
    rows = toy.make_cells(400)
    seen = []

    def counting():
        for row in rows:
            seen.append(row)
            yield row

    tests = [functools.partial(is_held_out, held_out=0.3), functools.partial(is_trained_on, held_out=0.3)]
    held_out, trained = collect_cells(counting(), [{0: 5, 1: 5}, {0: 10, 1: 3}], tests)
    assert [row["species"] for row in held_out].count(0) == 5
    assert len(held_out) == 10
    assert [row["species"] for row in trained].count(1) == 3
    assert len(seen) < 400
    assert not {r["cell_id"] for r in held_out} & {r["cell_id"] for r in trained}
