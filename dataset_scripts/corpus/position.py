"""Where a stream stands: what each reader has consumed, so that any number of readers can go on from there."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from genecompass.tokenization.errors import InputError

STATE_FORMAT = 1


@dataclass
class Segment:
    """A stretch of an epoch that was read by a fixed number of readers.

    Parameters
    ----------
    readers
        Ranks times workers. Reader ``r`` takes every ``readers``-th of the pools that are left, from the ``r``-th on.
    done
        Per reader, (pools finished, units consumed of the next one); a unit is a cell or a batch.
    """

    readers: int
    done: dict[int, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Left:
    """A pool that is left to read, and how many of its units were consumed already."""

    pool: int
    skip: int = 0


def pools_left(n_pools: int, segments: Sequence[Segment]) -> list[Left]:
    """What is left of an epoch after its segments.

    Parameters
    ----------
    n_pools
        Pools of the epoch.
    segments
        What was read, first to last.

    Returns
    -------
    list of Left
        In order; together with `segments` they make the whole epoch, without overlap.

    Examples
    --------
    >>> pools_left(4, [Segment(2, {0: (1, 0), 1: (0, 7)})])
    [Left(pool=1, skip=7), Left(pool=2, skip=0), Left(pool=3, skip=0)]
    """
    left = [Left(pool) for pool in range(n_pools)]
    for segment in segments:
        remaining = []
        for place, entry in enumerate(left):
            turn, reader = divmod(place, segment.readers)
            finished, units = segment.done.get(reader, (0, 0))
            if turn > finished or (turn == finished and units == 0):
                remaining.append(entry)
            elif turn == finished:
                remaining.append(Left(entry.pool, units))
        left = remaining
    return left


def merge_states(states: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Put together the states of all ranks, for a run that goes on with another number of processes.

    Parameters
    ----------
    states
        What ``state_dict()`` gave on every rank at the same step.

    Returns
    -------
    dict
        A state that every rank of the new run loads.

    Raises
    ------
    InputError
        When the states are of different streams or epochs, or a rank's is missing.

    Examples
    --------
    >>> one = {"format": 1, "stream": "x", "epoch": 0, "world_size": 2, "segments": [{"readers": 2, "done": {}}]}
    >>> merge_states([{**one, "ranks": [0]}, {**one, "ranks": [1]}])["ranks"]
    [0, 1]
    """
    if not states:
        raise InputError("merge_states: no states given")
    first = states[0]
    for state in states[1:]:
        for key in ("stream", "epoch", "world_size"):
            if state[key] != first[key]:
                raise InputError(f"merge_states: states differ in {key!r} ({first[key]!r} and {state[key]!r})")
    ranks = sorted({rank for state in states for rank in state["ranks"]})
    if ranks != list(range(first["world_size"])):
        raise InputError(f"merge_states: have the states of ranks {ranks}, need all {first['world_size']}")
    longest = max(states, key=lambda state: len(state["segments"]))["segments"]
    segments = [{"readers": segment["readers"], "done": dict(segment["done"])} for segment in longest]
    for state in states:
        for mine, segment in zip(state["segments"], segments, strict=False):
            if mine["readers"] != segment["readers"]:
                raise InputError("merge_states: the ranks ran with different numbers of workers")
            for reader, done in mine["done"].items():  # another rank may still have what this reader did earlier
                segment["done"][reader] = max(done, segment["done"].get(reader, [0, 0]))
    workers = {rank: worker for state in states for rank, worker in state.get("next_worker", {}).items()}
    return {**first, "ranks": ranks, "segments": segments, "next_worker": workers}


def segments_to_json(segments: Sequence[Segment]) -> list[dict[str, Any]]:
    """Segments as plain values."""
    return [{"readers": s.readers, "done": {str(r): list(d) for r, d in sorted(s.done.items())}} for s in segments]


def segments_from_json(content: Sequence[dict[str, Any]]) -> list[Segment]:
    """Segments back from plain values."""
    return [Segment(s["readers"], {int(r): (int(d[0]), int(d[1])) for r, d in s["done"].items()}) for s in content]
