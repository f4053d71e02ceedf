"""The standard table of a checkpoint: every part of a plan, each finished part kept, one JSON that cards read."""

import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd

from ...inference.cells import provenance
from ...inference.checkpoint import digest_of, load_checkpoint
from ...tokenization.devices import check_device
from ...tokenization.errors import InputError
from ...tokenization.files import atomic_path, sha256_of, sole_writer, write_json
from ...tokenization.sources import resolve
from .standard_parts import MEASURE, OURS, run_part, scib_wanted
from .standard_plan import Part, read_plan

Echo = Callable[[str], Any]
_COLUMNS = ("part", "task", "dataset", "method", "metric", "mean", "std", "seeds", "ours")
# half against half is what measuring twice gives, no method
_NO_METHOD = frozenset({"half against half"})


def benchmark_standard(
    plan: str | os.PathLike[str],
    model: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    only: Sequence[str] | None = None,
    device: str | None = None,
    echo: Echo | None = None,
) -> str:
    """Run every part of a plan that is not done yet, and write the table of all that are.

    A part is done when it was finished for the same checkpoint, settings, files and version of the package; whatever
    changes, it is run again, in a folder of its own. Parts that cannot be run are listed with the reason.

    Parameters
    ----------
    plan
        See `standard_plan`.
    model
        Checkpoint: folder or ``owner/name[@revision]``.
    output
        Folder: ``standard.json`` (rows as model cards read them), ``standard.csv``, ``standard.md``, and ``parts/``.
    only
        Names of parts to run now; the table holds those and whatever is done already.
    device
        Where the model runs: a GPU where there is one by default.
    echo
        Gets lines on the way.

    Returns
    -------
    str
        The summary and the tables, as in ``standard.md``.

    Raises
    ------
    InputError
        A bad plan (before any work), an adapter in the place of a checkpoint, another process in `output`; and, after
        all others are written, a part that could not be run.

    Examples
    --------
    >>> table = benchmark_standard("plan.yaml", "genecompass-mini", "standard")  # doctest: +SKIP
    """
    parts = read_plan(plan)
    names = [part.name for part in parts]
    for name in only or ():
        if name not in names:
            raise InputError(f"{plan}: no part is called {name!r}; there are: {'; '.join(names)}")
    check_device(device)
    folder, output = resolve(model), Path(output)
    if (folder / "adapter_config.json").is_file():
        raise InputError(f"{model}: an adapter; the standard table is of a checkpoint, so name its base model")
    network, _ = load_checkpoint(folder, device="cpu")
    checkpoint = {**provenance(network, _called(model)), "model_digest": digest_of(network)}
    identity = {**checkpoint, **{name: sha256_of(folder / name) for name in ("config.json", "genes.tsv.gz")}}
    tell = echo or (lambda line: None)
    digests: dict[Path, str] = {}
    done: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    with sole_writer(output):
        for part in parts:
            key = _key(part, identity, digests)
            home = output / "parts" / f"{_file_name(part.name)}-{key[:12]}"
            finished = _finished(home, key)
            if finished is None and (not only or part.name in only):
                tell(f"\n== {part.name} ({part.task})")
                try:
                    finished = _run(part, folder, home, key, device, echo)
                except (InputError, ImportError) as error:  # of this part; the others can be run
                    failed[part.name] = " ".join(str(error).split())
                    tell(f"left out: {failed[part.name]}")
            elif finished is not None:
                tell(f"{part.name}: done before, kept")
            if finished is not None:
                done.append({**finished, "trained_on": part.trained_on})
        waiting = [name for name in names if name not in {entry["name"] for entry in done} and name not in failed]
        text = _write(output, done, failed, waiting, checkpoint)
    if failed:
        name, reason = next(iter(failed.items()))
        raise InputError(f"{len(failed)} of {len(parts)} parts could not be run; the first, {name!r}: {reason}")
    return text


def summary_rows(parts: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a data set: the checkpoint's row that was named beforehand beside the best simple baseline.

    Parameters
    ----------
    parts
        Finished parts: ``name``, ``task``, ``rows``, ``differences``.

    Returns
    -------
    list of dict
        ``part``, ``dataset``, ``metric``, ``method`` (the checkpoint's), ``value``, ``std``, ``baseline``,
        ``baseline_value``, ``baseline_std``, ``trained_on``, and ``difference`` where it was measured against that
        baseline. The baseline is the best one on these very test data, which favours it.

    Examples
    --------
    >>> row = {"dataset": "x", "metric": "macro_f1", "std": 0.0, "seeds": 1}
    >>> ours = {**row, "method": "GeneCompass nearest neighbours", "mean": 0.9, "ours": True}
    >>> other = {**row, "method": "PCA", "mean": 0.8, "ours": False}
    >>> part = {"name": "x", "task": "annotation", "rows": [ours, other], "differences": {}}
    >>> summary_rows([part])[0]["baseline"]
    'PCA'
    """
    found = []
    for part in parts:
        metric = MEASURE[part["task"]]
        rows = [row for row in part["rows"] if row["metric"] == metric and math.isfinite(row["mean"])]
        for dataset in dict.fromkeys(row["dataset"] for row in rows):
            here = [row for row in rows if row["dataset"] == dataset]
            ours = {row["method"]: row for row in here if row["ours"]}
            mine = next((ours[name] for name in OURS[part["task"]] if name in ours), None)
            others = [row for row in here if _is_baseline(row)]
            if mine is None or not others:
                continue
            best = max(others, key=lambda row: row["mean"])
            difference = part["differences"].get(dataset)
            found.append(
                {
                    **{"part": part["name"], "task": part["task"], "dataset": dataset, "metric": metric},
                    "trained_on": part.get("trained_on", False),
                    **{"method": mine["method"], "value": mine["mean"], "std": mine.get("std")},
                    **{"baseline": best["method"], "baseline_value": best["mean"], "baseline_std": best.get("std")},
                    "difference": difference if difference and difference["against"] == best["method"] else None,
                }
            )
    return found


def _called(model: str | os.PathLike[str]) -> str:
    """A folder by its last name: where it lies on this machine is nobody's concern."""
    return Path(model).resolve().name if Path(model).exists() else str(model)


def _is_baseline(row: dict[str, Any]) -> bool:
    # untrained twins and shuffled tables of the checkpoint are controls: they stand in the tables, not in the summary
    return not row["ours"] and "genecompass" not in row["method"].lower() and row["method"] not in _NO_METHOD


def _key(part: Part, identity: dict[str, Any], digests: dict[Path, str]) -> str:
    """What a part's result hangs on, as hexadecimal digits."""
    settings = dict(part.settings)
    if "scib" in settings:
        settings["scib"] = scib_wanted(settings["scib"])
    for name, _ in part.files():
        settings.pop(name, None)  # a file is known by its content, wherever it lies
    content = {
        **{"task": part.task, "name": part.name, "seeds": part.seeds, "reading": part.reading, "settings": settings},
        **{"files": [(name, path.name, _digest(path, digests)) for name, path in part.files()]},
        **{"labels": _names(part), "checkpoint": {k: v for k, v in identity.items() if k not in ("model", "versions")}},
        "genecompass": metadata.version("genecompass"),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def _names(part: Part) -> dict[str, list[str]]:
    """Names that a plan gives to files, such as those of reference networks."""
    return {key: list(value) for key, value in part.settings.items() if isinstance(value, dict)}


def _digest(path: Path, known: dict[Path, str]) -> str:
    if path not in known:
        if path.is_dir():
            files = [(str(f.relative_to(path)), sha256_of(f)) for f in sorted(path.rglob("*")) if f.is_file()]
            known[path] = hashlib.sha256(json.dumps(files).encode()).hexdigest()
        else:
            known[path] = sha256_of(path)
    return known[path]


def _finished(home: Path, key: str) -> dict[str, Any] | None:
    try:
        found = json.loads((home / "part.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and found.get("key") == key else None


def _run(part: Part, model: Path, home: Path, key: str, device: str | None, echo: Echo | None) -> dict[str, Any]:
    begin = time.perf_counter()
    outcome = run_part(part, model, home, device=device, echo=echo)
    found = {
        **{"key": key, "name": part.name, "task": part.task, "seeds": list(part.seeds)},
        **{"seconds": round(time.perf_counter() - begin, 1), "rows": outcome.rows, "differences": outcome.differences},
    }
    write_json(home / "part.json", found)  # last: what is there is whole
    return found


def _write(
    output: Path, parts: list[dict[str, Any]], failed: dict[str, str], waiting: list[str], checkpoint: dict[str, Any]
) -> str:
    rows = [
        {"part": part["name"], "task": part["task"], **{name: row.get(name) for name in _COLUMNS[2:]}}
        for part in parts
        for row in part["rows"]
    ]
    summary = summary_rows(parts)
    done = [{name: part[name] for name in ("name", "task", "seeds", "seconds", "key", "trained_on")} for part in parts]
    content = {**{"task": "standard"}, **checkpoint, "parts": done, "left_out": failed, "waiting": waiting}
    write_json(output / "standard.json", {**content, "summary": summary, "rows": rows})
    with atomic_path(output / "standard.csv") as temporary:
        pd.DataFrame(rows, columns=list(_COLUMNS)).to_csv(temporary, index=False)
    text = as_text(content, summary, rows)
    with atomic_path(output / "standard.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    return text


def as_text(content: dict[str, Any], summary: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]]) -> str:
    """The table as Markdown: a line a data set, then every method.

    Parameters
    ----------
    content
        ``model``, ``model_digest``, ``versions``, ``parts``, ``left_out``, ``waiting``.
    summary
        From `summary_rows`.
    rows
        All rows.
    """
    version = content["versions"]["genecompass"]
    lines = [
        f"`{content['model']}` (digest {content['model_digest']}), genecompass {version}: "
        f"{len(content['parts'])} parts, {sum(part['seconds'] for part in content['parts']):.0f} s.",
        "",
        "The checkpoint's row is named beforehand; the baseline is the best one on the same test data, which favours "
        "it. ± is one standard deviation over seeds; brackets hold the 95 % interval of the difference. † marks cells "
        "that the checkpoint's pre-training saw, without labels.",
        "",
        "| data | measure | checkpoint | best simple baseline | difference |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in summary:
        mark = " †" if row["trained_on"] else ""
        mine, best = _shown(row["value"], row["std"]), _shown(row["baseline_value"], row["baseline_std"])
        lines.append(
            f"| {_cell(row['dataset'])}{mark} | {row['metric']} | {mine} ({_cell(row['method'])}) | {best} "
            f"({_cell(row['baseline'])}) | {_difference(row)} |"
        )
    lines += [f"\nLeft out: {name}: {reason}" for name, reason in content["left_out"].items()]
    lines += [f"\nNot run yet: {name}" for name in content["waiting"]]
    for task, dataset in dict.fromkeys((row["task"], row["dataset"]) for row in rows):
        here = [row for row in rows if (row["task"], row["dataset"]) == (task, dataset)]
        metrics = list(dict.fromkeys(row["metric"] for row in here))
        lines += ["", f"**{task}**: {_cell(dataset)}", "", f"| method | {' | '.join(metrics)} |"]
        lines.append("| --- |" + " --- |" * len(metrics))
        for method in dict.fromkeys(row["method"] for row in here):
            of = {row["metric"]: row for row in here if row["method"] == method}
            mark = "**" if any(row["ours"] for row in of.values()) else ""
            cells = [_shown(of[m]["mean"], of[m]["std"]) if m in of else "" for m in metrics]
            lines.append(f"| {mark}{_cell(method)}{mark} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _difference(row: dict[str, Any]) -> str:
    found = row["difference"]
    if found is None:
        return f"{row['value'] - row['baseline_value']:+.3f}"
    return f"{found['value']:+.3f} [{found['low']:+.3f}, {found['high']:+.3f}] {found['verdict']}"


def _shown(value: float, spread: float | None) -> str:
    return f"{value:.3f}" + (f" ± {spread:.3f}" if spread and spread >= 0.0005 else "")


def _cell(text: str) -> str:
    return text.replace("|", "/")


def _file_name(text: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in text).strip("_").lower()[:60]
