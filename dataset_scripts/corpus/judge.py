"""Quality control of one input: which of its cells the corpus takes."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from genecompass.tokenization.files import atomic_path

from .measures import decide
from .scatter import Task


@dataclass(frozen=True)
class Verdict:
    """What quality control says about an input.

    Parameters
    ----------
    dataset
        Name of the input.
    kept
        Cells that go into the corpus.
    removed
        Per reason, how many do not.
    """

    dataset: str
    kept: int
    removed: dict[str, int]


def judge(tasks: list[Task], work: Path) -> Verdict:
    """Decide which cells of an input to keep, from what the first pass measured of all of them.

    Parameters
    ----------
    tasks
        All first-pass tasks of the input, finished.
    work
        The folder that holds their output. Writes ``<task>.keep.npy``, bool (n_cells of the task,).

    Returns
    -------
    Verdict
    """
    measures = np.concatenate([np.load(work / f"{task.name}.measures.npy", allow_pickle=False) for task in tasks])
    samples = None
    if tasks[0].source.sample:
        samples = np.concatenate([np.load(work / f"{task.name}.samples.npy", allow_pickle=False) for task in tasks])
    keep, removed = decide(measures, quality=tasks[0].quality, samples=samples, table=tasks[0].table)
    for task in tasks:
        with atomic_path(work / f"{task.name}.keep.npy") as temporary:
            np.save(temporary, keep[task.start : task.stop])
    return Verdict(tasks[0].source.dataset, int(keep.sum()), removed)
