"""The manifest: what it records, and that every kind of damage is named."""

import json

import pytest
from genecompass.tokenization.errors import InputError
from genecompass.tokenization.manifest import (
    MANIFEST,
    check_manifest,
    describe_origin,
    read_manifest,
    record_files,
    training_state,
    write_manifest,
)
from hypothesis import given
from hypothesis import strategies as st


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "priors"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.tsv").write_text("gene_id\nENSG1\n")
    (folder / "deep" / "b.safetensors").write_bytes(b"\x00" * 64)
    (folder / ".gitattributes").write_text("* text")
    (folder / "optimizer.pt").write_bytes(b"pickle")
    (folder / "checkpoint-20").mkdir()
    (folder / "checkpoint-20" / "model.safetensors").write_bytes(b"old")
    return folder


def test_records_what_is_published_and_nothing_else(folder):
    content = write_manifest(folder, "priors", derived_from="someone/tiny@v1", extra={"seed": 3})
    assert sorted(content["files"]) == ["a.tsv", "deep/b.safetensors"]
    assert content["files"]["a.tsv"]["bytes"] == 14
    assert content["derived_from"] == {"repo": "someone/tiny", "revision": "v1"}
    assert content["seed"] == 3
    assert "python" in content["versions"]
    assert "torch" in content["versions"]
    assert json.loads((folder / MANIFEST).read_text()) == content
    assert check_manifest(folder) == []
    assert training_state(folder) == ["checkpoint-20/model.safetensors", "optimizer.pt"]


def test_writing_twice_gives_the_same_bytes(folder):
    write_manifest(folder, "priors")
    first = (folder / MANIFEST).read_bytes()
    write_manifest(folder, "priors")
    assert (folder / MANIFEST).read_bytes() == first


@pytest.mark.parametrize("name", ["a.tsv", "deep/b.safetensors"])
@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_one_flipped_bit_is_found_and_the_file_named(tmp_path_factory, name, where, bit):
    folder = tmp_path_factory.mktemp("flip")
    (folder / "deep").mkdir()
    (folder / "a.tsv").write_text("gene_id\nENSG1\n")
    (folder / "deep" / "b.safetensors").write_bytes(bytes(range(64)))
    write_manifest(folder, "priors")
    content = bytearray((folder / name).read_bytes())
    content[int(where * len(content))] ^= 1 << bit
    (folder / name).write_bytes(content)
    problems = check_manifest(folder)
    assert len(problems) == 1
    assert problems[0].startswith(f"{name}: changed")


def test_missing_resized_and_added_files_are_named(folder):
    write_manifest(folder, "priors")
    (folder / "a.tsv").unlink()
    (folder / "deep" / "b.safetensors").write_bytes(b"")
    (folder / "extra.bin").write_bytes(b"x")
    assert check_manifest(folder) == [
        "a.tsv: missing",
        "deep/b.safetensors: 0 bytes, the manifest says 64",
        "extra.bin: not listed in manifest.json",
    ]


@pytest.mark.parametrize("text", ["{", "[]", '{"files": 3}', ""])
def test_a_damaged_manifest_is_one_clear_line(folder, text):
    (folder / MANIFEST).write_text(text)
    (problem,) = check_manifest(folder)
    assert "manifest.json" in problem
    assert "fetch the folder again" in problem
    with pytest.raises(InputError):
        read_manifest(folder)


def test_a_manifest_cannot_point_outside_its_folder(folder):
    content = write_manifest(folder, "priors")
    content["files"]["../secret"] = {"bytes": 1, "sha256": "0"}
    (folder / MANIFEST).write_text(json.dumps(content))
    assert "../secret: the manifest names a file outside the folder" in check_manifest(folder)


def test_bringing_one_entry_up_to_date_hides_no_other_damage(folder):
    write_manifest(folder, "priors")
    (folder / "README.md").write_text("card")
    (folder / "a.tsv").write_text("gene_id\nENSG2\n")
    record_files(folder, ["README.md"])
    (problem,) = check_manifest(folder)
    assert problem.startswith("a.tsv: changed")


def test_origin_names_no_local_path(folder, tmp_path):
    write_manifest(folder, "priors")
    described = describe_origin({"base": folder, "table": folder / "a.tsv", "gone": "/nowhere/at/all", "n": 3})
    assert described["base"]["name"] == "priors"
    assert len(described["base"]["manifest_sha256"]) == 64
    assert described["gone"] == {"name": "all"}
    assert str(tmp_path) not in json.dumps(described)


def test_bad_input(folder, tmp_path):
    with pytest.raises(InputError, match="unknown kind"):
        write_manifest(folder, "model")
    with pytest.raises(InputError, match="no such folder"):
        write_manifest(tmp_path / "absent", "priors")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty folder"):
        write_manifest(tmp_path / "empty", "priors")
    with pytest.raises(InputError, match="belongs to the manifest"):
        write_manifest(folder, "priors", extra={"files": {}})
    assert not (folder / MANIFEST).exists()
