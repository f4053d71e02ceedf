"""Faults on purpose: kills of the verbs that write, two at once, damaged files. Prints tried, survived, lost.

A kill is SIGKILL at a random moment of the work; after the last one the verb runs to its end, and what it leaves must
be what an undisturbed run leaves. A damaged file survives when it is read or refused in one line; what is raised
otherwise, hangs or kills the process is lost. ``--kills`` and the like say how many.
"""

import argparse
import hashlib
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import torch
from genecompass.modeling_genecompass import GeneCompassConfig, GeneCompassForMaskedGeneModeling
from genecompass.tokenization import GeneCompassProcessor
from genecompass.tokenization.gene_table import GeneTable
from genecompass.tokenization.manifest import write_manifest
from scipy import sparse

GENES, CELLS = 200, 4000

VERBS = {
    "embed": """
from genecompass.inference import embed_file
embed_file("cells.h5ad", out + ".h5ad", "model", "human")
""",
    "corpus": """
from genecompass.dataset_scripts.corpus.builder import build
build("inputs.tsv", out)
""",
    "finetune": """
from genecompass.training.finetuning.finetune import finetune_cells
finetune_cells("few.h5ad", "kind", "model", "human", output=out, epochs=2, device="cpu", progress=False)
""",
    "pretrain": """
import os
from genecompass.training.pretraining.config import load_config
from genecompass.training.pretraining.pretrain import pretrain
sets = ["data.max_length=64", "data.tokens_per_batch=640", "data.pool_cells=64", "logging.to=[]", "data.workers=0",
        "logging.progress_bar=false", "optimisation.device=cpu", "optimisation.max_steps=60", "data.held_out=0.2",
        "checkpoints.every_steps=5", "model.overrides={hidden_size: 16}", "optimisation.warmup_steps=2",
        "gene_table=genes.parquet", "corpus=reference-corpus", "output=" + out]
pretrain(load_config("tiny", sets), resume=os.path.exists(out + "/run.json"))
""",
}


def make_inputs(folder: Path) -> None:
    """Cells of two kinds, a checkpoint, a gene table."""
    draw = np.random.default_rng(0)
    names = [f"ENSG{i:011d}" for i in range(GENES)]
    odds = np.where(np.arange(GENES) % 2, 0.4, 1.5)
    kind = draw.integers(0, 2, CELLS)
    counts = draw.poisson(np.where(kind[:, None], odds, odds[::-1])).astype(np.float32)
    counts[:, 0] += 1
    obs = pd.DataFrame({"kind": pd.Categorical(np.where(kind, "a", "b"))}, index=[f"c{i}" for i in range(CELLS)])
    cells = anndata.AnnData(sparse.csr_matrix(counts), obs=obs, var=pd.DataFrame(index=names))
    cells.write_h5ad(folder / "cells.h5ad")
    cells[:300].copy().write_h5ad(folder / "few.h5ad")
    (folder / "inputs.tsv").write_text("path\tspecies\ncells.h5ad\thuman\nfew.h5ad\thuman\n")
    table = GeneTable.from_genes(pd.DataFrame({"gene_id": names, "symbol": names, "species": "human", "median": 1.5}))
    table.write(folder / "genes.parquet")
    torch.manual_seed(0)
    config = GeneCompassConfig.tiny(vocab_size=table.vocab_size, species=["human"], max_position_embeddings=64)
    GeneCompassForMaskedGeneModeling(config).save_pretrained(folder / "model")
    GeneCompassProcessor.from_gene_table(table, max_length=64).save_pretrained(folder / "model")


def start(folder: Path, code: str, out: str) -> subprocess.Popen[str]:
    """A process that says READY when everything is imported, then does the work."""
    imports = "\n".join(line for line in code.splitlines() if line.startswith(("from ", "import ")))
    program = f"out = {out!r}\n{imports}\nprint('READY', flush=True)\n{code}"
    return subprocess.Popen(
        [sys.executable, "-c", program], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def fingerprint(folder: Path, verb: str, out: str) -> str:
    """What a verb's output is compared by: every number of it, without times and paths."""
    if verb == "embed":
        with h5py.File(folder / f"{out}.h5ad") as file:
            arrays = [file["obsm/X_genecompass"][:], np.nan_to_num(file["varm/genecompass"][:])]
        return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()
    kept = "*.parquet" if verb == "corpus" else "*.safetensors"
    files = [path for path in sorted((folder / out).rglob(kept)) if "checkpoint-" not in str(path)]
    assert files, f"{verb} left nothing"
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def kill_loop(folder: Path, verb: str, kills: int, draw: random.Random) -> tuple[int, int, str]:
    """Kills at random moments, then one run to the end; (tried, survived, remark)."""
    reference = f"reference-{verb}"
    process = start(folder, VERBS[verb], reference)
    process.stdout.readline()  # type: ignore[union-attr]
    begin = time.perf_counter()
    _, said = process.communicate()
    if process.returncode:
        return kills, 0, f"undisturbed run failed: {said.strip().splitlines()[-1][:120]}"
    seconds = time.perf_counter() - begin
    expected = fingerprint(folder, verb, reference)
    done = 0
    for _ in range(kills):
        process = start(folder, VERBS[verb], f"killed-{verb}")
        process.stdout.readline()  # type: ignore[union-attr]
        time.sleep(draw.uniform(0, seconds * 0.6))
        process.send_signal(signal.SIGKILL)
        _, said = process.communicate()
        if process.returncode == 0:
            done += 1
            for path in folder.glob(f"killed-{verb}*"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        elif process.returncode != -signal.SIGKILL:
            return kills, 0, f"failed after a kill: {said.strip().splitlines()[-1][:120]}"
    process = start(folder, VERBS[verb], f"killed-{verb}")
    _, said = process.communicate()
    if process.returncode:
        return kills, 0, f"failed after kills: {said.strip().splitlines()[-1][:120]}"
    same = fingerprint(folder, verb, f"killed-{verb}") == expected
    left = [path.name for path in folder.iterdir() if path.name.startswith(".") and "partial" in path.name]
    remark = f"work {seconds:.1f} s; {done} had finished; same bytes" if same else "other numbers than undisturbed"
    return kills, kills if same and not left else 0, remark + (f"; left {left[0]}" if left else "; nothing left behind")


def two_at_once(folder: Path, verb: str) -> tuple[int, int, str]:
    """Two processes on one output: one works, the other says that it is taken."""
    both = [start(folder, VERBS[verb], f"two-{verb}") for _ in range(2)]
    ends = [process.communicate()[1] for process in both]
    codes = sorted(process.returncode for process in both)
    told = any("another process" in said or "exists" in said or "in use" in said for said in ends)
    same = fingerprint(folder, verb, f"two-{verb}") == fingerprint(folder, verb, f"reference-{verb}")
    return (
        1,
        int(same and (told or codes == [0, 0])),
        f"exit codes {codes}, {'told' if told else 'one after the other'}",
    )


_READ = """
import sys, pathlib, faulthandler
from genecompass.tokenization.errors import InputError
{imports}
read = refused = 0
for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    print(path.name, flush=True)
    try:
        {act}
        read += 1
    except InputError as error:
        assert "\\n" not in str(error)
        refused += 1
print("END", read, refused, flush=True)
"""
READERS = {
    "cells": (
        "from genecompass.tokenization.readers import open_cells",
        "[block.sum() for _, block in open_cells(path).blocks()]",
    ),
    "pickle": (
        "from genecompass.tokenization.safe_pickle import read_plain_pickle",
        "read_plain_pickle(path)",
    ),
    "checkpoint": (
        "from genecompass.inference import load_checkpoint",
        "load_checkpoint(path, device='cpu')",
    ),
}


def flipped(content: bytes, draw: random.Random, bits: int = 1) -> bytes:
    """The content with some bits turned over."""
    changed = bytearray(content)
    for _ in range(bits):
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def read_damaged(folder: Path, kind: str) -> tuple[int, int, str]:
    """Read every file of a folder in another process; (tried, survived, remark)."""
    imports, act = READERS[kind]
    files = sorted(path.name for path in folder.iterdir())
    lost, read, refused = [], 0, 0
    while files:
        code = _READ.format(imports=imports, act=act)
        done = subprocess.run([sys.executable, "-W", "ignore", "-c", code, str(folder)], capture_output=True, text=True)
        lines = done.stdout.split("\n")
        if done.returncode == 0 and lines[-2].startswith("END"):
            read, refused = (int(number) for number in lines[-2].split()[1:])
            break
        at = [line for line in lines if line][-1]
        lost.append(f"{at}: {done.stderr.strip().splitlines()[-1][:100] if done.stderr else done.returncode}")
        shutil.rmtree(folder / at) if (folder / at).is_dir() else (folder / at).unlink()
        files.remove(at)
    tried = read + refused + len(lost)
    return tried, read + refused, f"{read} read, {refused} refused" + (f"; {lost[0]}" if lost else "")


def damaged_files(folder: Path, name: str, number: int, draw: random.Random, make: Callable[[Path], None]) -> Path:
    """A folder of copies of one file, each with one to three bits flipped."""
    target = folder / f"damaged-{name}"
    target.mkdir()
    make(folder / name)
    content = (folder / name).read_bytes()
    for place in range(number):
        (target / f"{place:05d}{Path(name).suffix}").write_bytes(flipped(content, draw, draw.randint(1, 3)))
    return target


def write_loom(path: Path) -> None:
    """A small loom file."""
    with h5py.File(path, "w") as file:
        file["matrix"] = np.random.default_rng(0).poisson(0.8, (12, 9))
        file["row_attrs/Gene"] = np.array([f"G{i}".encode() for i in range(12)])
        file["col_attrs/CellID"] = np.array([f"c{i}".encode() for i in range(9)])


def write_tenx(path: Path) -> None:
    """A small 10x file."""
    counts = sparse.csr_matrix(np.random.default_rng(0).poisson(0.8, (9, 12)).astype(np.int32))
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix")
        group["data"], group["indices"], group["indptr"] = counts.data, counts.indices, counts.indptr
        group["shape"] = np.array([12, 9], np.int32)
        group["barcodes"] = np.array([f"c{i}".encode() for i in range(9)])
        group["features/id"] = group["features/name"] = np.array([f"ENSG{i:011d}".encode() for i in range(12)])


def write_h5ad(path: Path) -> None:
    """A small AnnData file."""
    counts = sparse.csr_matrix(np.random.default_rng(0).poisson(0.8, (9, 12)).astype(np.float32))
    anndata.AnnData(counts, var=pd.DataFrame(index=[f"ENSG{i:011d}" for i in range(12)])).write_h5ad(path)


def damaged_checkpoints(folder: Path, number: int, draw: random.Random, sealed: bool) -> Path:
    """Copies of a checkpoint, each with one file damaged; `sealed`: with the manifest that the package writes."""
    target = folder / f"damaged-checkpoints-{sealed}"
    target.mkdir()
    files = ["model.safetensors", "config.json", "genes.tsv.gz", "tokenizer.json"]
    for place in range(number):
        copy = shutil.copytree(folder / "model", target / f"{place:05d}")
        if sealed:
            write_manifest(copy, "checkpoint", known_answer=False)
        path = copy / files[place % len(files)]
        content = path.read_bytes()
        how = place // len(files) % 3
        damaged = [flipped(content, draw, 3), content[: draw.randrange(len(content))], content + content[-50:]][how]
        path.write_bytes(damaged)
    return target


def damaged_pickles(folder: Path, number: int, draw: random.Random) -> Path:
    """Mutated pickles of every protocol."""
    target = folder / "damaged-pickles"
    target.mkdir()
    plain = {"ENSG1": 1, "l": [1.5, None, (1, 2)], "s": {1}, "n": np.float64(1), "a": np.arange(6.0).reshape(2, 3)}
    for place in range(number):
        content = bytearray(pickle.dumps(plain, protocol=place % 6))
        for _ in range(draw.randint(1, 6)):
            at = draw.randrange(len(content))
            content[at : at + draw.randint(0, 2)] = bytes(draw.randrange(256) for _ in range(draw.randint(0, 2)))
        (target / f"{place:05d}.pickle").write_bytes(content)
    return target


def main() -> None:
    """Run everything that was asked for and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--files", type=int, default=500)
    parser.add_argument("--checkpoints", type=int, default=200)
    parser.add_argument("--pickles", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    draw = random.Random(options.seed)
    print("| fault | tried | survived | lost | remark |\n| --- | ---: | ---: | ---: | --- |")

    def show(fault: str, found: tuple[int, int, str]) -> None:
        tried, survived, remark = found
        print(f"| {fault} | {tried} | {survived} | {tried - survived} | {remark.replace('|', '/')} |", flush=True)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_inputs(folder)
        small: dict[str, Callable[[Path], None]] = {"x.h5ad": write_h5ad, "x.loom": write_loom, "x.h5": write_tenx}
        for file, make in small.items():
            if options.files:
                show(
                    f"bits flipped in {file[1:]}",
                    read_damaged(damaged_files(folder, file, options.files, draw, make), "cells"),
                )
        if options.pickles:
            show("mutated pickles", read_damaged(damaged_pickles(folder, options.pickles, draw), "pickle"))
        if options.checkpoints:
            for sealed in (True, False):
                broken = damaged_checkpoints(folder, options.checkpoints, draw, sealed)
                fault = f"damaged checkpoints, {'as the package writes them' if sealed else 'manifest taken away'}"
                show(fault, read_damaged(broken, "checkpoint"))
        if options.kills:
            for verb in ("corpus", "embed", "pretrain", "finetune"):
                show(f"kills of {verb}", kill_loop(folder, verb, options.kills, draw))
            for verb in ("corpus", "embed", "pretrain"):
                show(f"two at once, {verb}", two_at_once(folder, verb))


if __name__ == "__main__":
    main()
