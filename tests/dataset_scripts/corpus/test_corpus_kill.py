"""Killed at any moment, the builder goes on and ends with the same bytes."""

import multiprocessing
import os
import shutil
import signal
import time

import numpy as np
from genecompass.dataset_scripts.corpus.builder import build


def test_twenty_kills(inputs, corpus, tree, tmp_path):
    expected = tree(corpus)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["genecompass.dataset_scripts.corpus.builder", "anndata", "h5py"])
    out = tmp_path / "out"
    once = context.Process(target=build, args=(inputs / "inputs.tsv", tmp_path / "timing"))
    once.start()
    once.join()
    once = context.Process(target=build, args=(inputs / "inputs.tsv", tmp_path / "timing2"))
    begun = time.monotonic()
    once.start()
    once.join()
    whole = time.monotonic() - begun
    rng = np.random.default_rng(0)
    kills = finished = 0
    stages = set()
    while kills < 20:
        builder = context.Process(target=build, args=(inputs / "inputs.tsv", out))
        builder.start()
        builder.join(rng.uniform(0.02, 0.6) * whole)
        if builder.is_alive():
            os.kill(builder.pid, signal.SIGKILL)
            kills += 1
        builder.join()
        done = sorted(path.name.split("-")[0] for path in out.rglob("done/*.json"))
        stages.add((len(done), *sorted(set(done))))
        if builder.exitcode == 0:
            assert tree(out) == expected
            finished += 1
            shutil.rmtree(out)
    build(inputs / "inputs.tsv", out)
    assert tree(out) == expected
    assert len(stages) > 3, "the kills hit different stages of the build"
