"""One door for folders and repositories: pinned or warned, cached, and plain words when it fails."""

import pytest
from genecompass.tokenization.errors import InputError
from genecompass.tokenization.sources import resolve, split_revision

TRY = """
import sys, warnings
from genecompass.tokenization.sources import resolve
for source, kind in {sources!r}:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            print("FOLDER", resolve(source, repo_type=kind).name, [str(w.message) for w in caught])
        except ValueError as error:
            print("ERROR", error)
"""


def _put(hub, kind, name, files, private=False):
    sha = "a" * 40
    commits = {sha: {".gitattributes": b"", **files}}
    hub.repos[kind, name] = {"private": private, "commits": commits, "refs": {"main": sha, "v1": sha}, "tags": {"v1"}}


def test_repositories_and_what_goes_wrong(hub, client):
    _put(hub, "model", "someone/tiny", {"config.json": b"{}"})
    _put(hub, "model", "someone/gated", {"config.json": b"{}"})
    _put(hub, "dataset", "someone/cells", {"README.md": b"cells"})
    hub.gated.add("someone/gated")
    sources = [
        ("someone/tiny@v1", "model"),
        ("someone/tiny", "model"),
        ("someone/cells@v1", "dataset"),
        ("someone/tiny@v9", "model"),
        ("someone/absent", "model"),
        ("someone/cells@v1", "model"),
        ("someone/gated@v1", "model"),
        ("some--one/x", "model"),
    ]
    lines = client(TRY.format(sources=sources)).splitlines()
    assert lines[0] == f"FOLDER {'a' * 40} []"
    assert lines[1].startswith(f"FOLDER {'a' * 40} ['someone/tiny: no revision pinned, read at commit aaaa")
    assert "write someone/tiny@aaaaaaaaaaaa" in lines[1]
    assert lines[2] == f"FOLDER {'a' * 40} []"
    assert lines[3] == "ERROR someone/tiny: has no revision 'v9' (branch, tag or commit)"
    assert lines[4].startswith("ERROR someone/absent: no such model repository")
    assert lines[5].endswith("or is it a dataset repository?")
    assert lines[6].startswith("ERROR someone/gated@v1: gated; ask for access")
    assert "not a valid repository name" in lines[7]

    again = [("someone/tiny@v1", "model"), ("someone/other@v1", "model")]
    offline = client(TRY.format(sources=again), offline=True).splitlines()
    assert offline[0] == f"FOLDER {'a' * 40} []"
    assert "not in the local cache" in offline[1]

    hub.close()
    lost = client(TRY.format(sources=[("someone/fresh@v1", "model")])).strip()
    assert lost.startswith("ERROR someone/fresh@v1: ")
    assert "cannot be reached" in lost or "network lost" in lost


def test_a_full_disk_is_said_plainly(monkeypatch):
    import errno

    import huggingface_hub

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", full)
    with pytest.raises(InputError, match="disk full while fetching; free space or point HF_HOME"):
        resolve("someone/tiny@v1")


def test_folders_come_first_and_other_words_are_refused(tmp_path, monkeypatch):
    (tmp_path / "someone" / "tiny").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert resolve("someone/tiny").is_dir()
    with pytest.raises(InputError, match="no such folder, and not a repository name"):
        resolve("runs/tiny/model")
    with pytest.raises(InputError, match="nothing after '@'"):
        split_revision("someone/tiny@")
