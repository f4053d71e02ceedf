"""Inputs that change, disks that fill, states that break: the builder tells, keeps what is whole, mixes nothing."""

import json
import os
import resource
import shutil

import pandas as pd
import pyarrow.parquet as pq
import pytest
from genecompass.dataset_scripts.corpus import builder
from genecompass.dataset_scripts.corpus.builder import BuildOptions, build
from genecompass.dataset_scripts.corpus.checks import verify
from genecompass.dataset_scripts.corpus.layout import WORK_FOLDER
from genecompass.tokenization.errors import InputError


@pytest.fixture
def begun(inputs, tmp_path, monkeypatch):
    """Inputs of one's own and a build of them that ended between reading and writing."""
    mine = shutil.copytree(inputs, tmp_path / "inputs")
    folder = tmp_path / "corpus"

    def stop(*_):
        raise RuntimeError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(builder, "_lay_axes", stop)
        with pytest.raises(RuntimeError):
            build(mine / "inputs.tsv", folder)
    return mine, folder


def test_an_input_replaced_under_an_unfinished_build_is_told(begun, make_cells, corpus, tree):
    mine, folder = begun
    old = (mine / "a.h5ad").read_bytes()
    make_cells(1500, 77, species="human").write_h5ad(mine / "a.h5ad", compression="gzip")
    with pytest.raises(InputError, match=r"a\.h5ad: changed since the unfinished build"):
        build(mine / "inputs.tsv", folder)
    # the very bytes under another time: nothing has changed
    (mine / "a.h5ad").write_bytes(old)
    os.utime(mine / "a.h5ad", (1, 1))
    build(mine / "inputs.tsv", folder)
    assert tree(folder) == tree(corpus)


def test_an_input_that_grows_while_it_is_read_is_not_taken(inputs, tmp_path, monkeypatch):
    mine = shutil.copytree(inputs, tmp_path / "inputs")
    read = builder.scatter

    def and_touch(task, target):
        record = read(task, target)
        if task.source.dataset == "a":
            with open(task.source.path, "ab") as handle:
                handle.write(b"more")
        return record

    monkeypatch.setattr(builder, "scatter", and_touch)
    report = build(mine / "inputs.tsv", tmp_path / "corpus")
    assert "changed while it was read" in report.failed["a"]
    assert report.cells == {"human": 700, "mouse": 900}


def test_another_file_for_a_known_data_set_is_told(inputs, corpus, make_cells, tmp_path):
    mine, folder = shutil.copytree(inputs, tmp_path / "inputs"), shutil.copytree(corpus, tmp_path / "corpus")
    build(mine / "inputs.tsv", folder)
    make_cells(40, 78, species="mouse").write_h5ad(mine / "b.h5ad")
    with pytest.raises(InputError, match="holds data set 'b' already, from a file of other content"):
        build(mine / "inputs.tsv", folder)
    assert verify(folder).sound
    (mine / "b.h5ad").unlink()  # a file that is not kept needs not be there
    build(mine / "inputs.tsv", folder)


def test_a_full_disk_ends_the_build_and_keeps_its_state(inputs, corpus, tmp_path, tree):
    folder = tmp_path / "corpus"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, before[1]))
    try:
        with pytest.raises(InputError, match=r"cannot be written .*what is finished is kept"):
            build(inputs / "inputs.tsv", folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not (folder / "manifest.json").exists()
    assert (folder / WORK_FOLDER / "plan.json").exists()
    build(inputs / "inputs.tsv", folder)
    assert tree(folder) == tree(corpus)


@pytest.mark.parametrize("file", ["scatter-00000-00000.arrow", "done/scatter-00001-00000.json"])
def test_damaged_work_is_done_again(begun, corpus, tree, file, caplog):
    mine, folder = begun
    path = folder / WORK_FOLDER / file
    path.write_bytes(path.read_bytes()[:-7])
    build(mine / "inputs.tsv", folder)
    assert "done again" in caplog.text
    assert tree(folder) == tree(corpus)


def test_a_damaged_plan_is_named(begun):
    mine, folder = begun
    (folder / WORK_FOLDER / "plan.json").write_text("{")
    with pytest.raises(InputError, match=r"plan\.json: damaged"):
        build(mine / "inputs.tsv", folder)


def test_a_flipped_bit_in_a_shard_is_not_another_count(corpus, tmp_path):
    folder = shutil.copytree(corpus, tmp_path / "corpus")
    shard = next((folder / "data" / "human").glob("*.parquet"))
    content = bytearray(shard.read_bytes())
    column = pq.ParquetFile(shard).metadata.row_group(0).column(1)
    content[column.data_page_offset + column.total_compressed_size - 20] ^= 1
    shard.write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_text())
    name = shard.relative_to(folder).as_posix()
    with pytest.raises(OSError, match=r"(?i)checksum|crc"):
        pq.ParquetFile(shard, page_checksum_verification=True).read()
    assert name in manifest["files"]
    assert any(name in problem for problem in verify(folder).problems)


@pytest.mark.parametrize("species", ["../../elsewhere", "Homo sapiens", "|human", ""])
def test_a_species_is_a_plain_word(inputs, make_cells, tmp_path, species):
    cells = make_cells(20, 5)
    cells.obs["organism"] = species
    cells.write_h5ad(tmp_path / "x.h5ad")
    pd.DataFrame([{"path": "x.h5ad", "species": "obs:organism"}]).to_csv(tmp_path / "t.tsv", sep="\t", index=False)
    with pytest.raises(InputError, match=r"plain word|has no species"):
        build(tmp_path / "t.tsv", tmp_path / "corpus", options=BuildOptions())
