"""Check that what lies in a folder or repository is what was saved, and still computes what it computed then."""

import json
import os
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..tokenization.checkpoint_files import check_checkpoint
from ..tokenization.errors import InputError
from ..tokenization.known_answer import compare_known_answer, compute_known_answer
from ..tokenization.manifest import check_manifest, published_files, read_manifest
from ..tokenization.sources import resolve, split_revision
from .contents import is_pickle


@dataclass
class Verification:
    """What was checked and what was found.

    Parameters
    ----------
    source
        Folder or repository as given.
    folder
        Where its files lie.
    kind
        ``checkpoint``, ``adapter``, ``priors`` or ``corpus``; None where no manifest says.
    passed
        One line for every check that found nothing wrong.
    skipped
        One line for every check that could not be made, with the reason.
    problems
        One line for every problem, with the file at fault.
    """

    source: str
    folder: Path
    kind: str | None = None
    passed: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether no problem was found."""
        return not self.problems


def verify_source(
    source: str | os.PathLike[str], *, repo_type: str | None = None, base: str | os.PathLike[str] | None = None
) -> Verification:
    """Check files against the manifest, then run what was recorded at save time and compare.

    No code from the folder or repository is executed: models load with ``trust_remote_code=False``, by the classes
    of this package.

    Parameters
    ----------
    source
        Local folder or ``owner/name[@revision]``.
    repo_type
        ``model`` or ``dataset``; None tries both.
    base
        For an adapter: a base checkpoint to use instead of the one that it names.

    Raises
    ------
    InputError
        The source cannot be fetched at all.

    Examples
    --------
    >>> verify_source("genecompass-mini").ok
    True
    """
    # The package's own classes must be known before anything loads: then no code of the folder ever runs.
    from .. import modeling_genecompass  # noqa: F401

    folder = _fetch(source, repo_type)
    found = Verification(str(source), folder)
    found.problems += check_manifest(folder)
    found.problems += [f"{name}: a pickle" for name in published_files(folder) if is_pickle(folder / name)]
    if found.problems:
        found.skipped.append("content: not looked at, because the files are not those that were saved")
        return found
    manifest = read_manifest(folder)
    found.kind = manifest.get("kind")
    size = sum(entry["bytes"] for entry in manifest["files"].values())
    found.passed.append(f"files: {len(manifest['files'])} files, {size:,} bytes, all as recorded; no pickle")
    look = {"checkpoint": _check_model, "adapter": _check_model, "priors": _check_priors, "corpus": _check_corpus}
    if found.kind in look:
        look[found.kind](found, manifest, base)
    else:
        found.problems.append(f"manifest.json: unknown kind {found.kind!r}")
    return found


def _fetch(source: str | os.PathLike[str], repo_type: str | None) -> Path:
    if repo_type is not None:
        return resolve(source, repo_type=repo_type)
    try:
        return resolve(source)
    except InputError as error:
        if "no such model repository" not in str(error):
            raise
        try:
            return resolve(source, repo_type="dataset")
        except InputError as second:
            if "no such dataset repository" in str(second):
                name, _ = split_revision(source)
                raise InputError(
                    f"{name}: no such model or dataset repository, or it is private and you are not logged in "
                    f"(`hf auth login` or HF_TOKEN)"
                ) from second
            raise


def _check_model(found: Verification, manifest: dict[str, Any], base: str | os.PathLike[str] | None) -> None:
    recorded = manifest.get("known_answer")
    if not recorded or "skipped" in recorded:
        reason = (recorded or {}).get("skipped", "no outputs were recorded when it was saved")
        found.skipped.append(f"known answer: {reason}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            check_checkpoint(found.folder)
            computed = compute_known_answer(found.folder, found.kind or "checkpoint", base=base)
    except Exception as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        found.problems.append(f"{_weights(found.folder)}: does not load ({reason})")
        return
    if "skipped" in computed:
        found.skipped.append(f"model: not run, {computed['skipped']}")
        return
    found.passed.append(f"model: loads as {computed['model']} with remote code off")
    if not recorded or "skipped" in recorded:
        return
    differences = compare_known_answer(recorded, computed)
    found.problems += differences
    if not differences:
        names = ", ".join(recorded["outputs"])
        found.passed.append(f"known answer: outputs for the fixed input as recorded ({names})")
        if "processor" in recorded:
            found.passed.append("processor: tokens and values of the fixed cell as recorded")


def _weights(folder: Path) -> str:
    files = sorted(path.name for path in folder.glob("*.safetensors"))
    return files[0] if files else "model.safetensors"


def _check_priors(found: Verification, manifest: dict[str, Any], base: Any) -> None:
    import numpy as np
    from safetensors import SafetensorError, safe_open

    tables = 0
    rows = set()
    for path in sorted(found.folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="np") as tensors:
                for name in tensors.keys():  # noqa: SIM118 - not a dictionary
                    table = tensors.get_tensor(name)
                    tables += 1
                    if table.ndim == 2:
                        rows.add(table.shape[0])
                    if table.dtype.kind == "f" and not np.isfinite(table).all():
                        found.problems.append(f"{path.name}: table {name} holds numbers that are not finite")
        except SafetensorError as error:
            found.problems.append(f"{path.name}: does not open ({error})")
    if not tables:
        found.problems.append(f"{found.folder}: no table here (*.safetensors)")
    elif not found.problems:
        found.passed.append(f"tables: {tables}, finite, {'/'.join(map(str, sorted(rows)))} rows")


def _check_corpus(found: Verification, manifest: dict[str, Any], base: Any) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    shards = sorted(name for name in manifest["files"] if name.startswith("data/") and name.endswith(".parquet"))
    if not shards:
        found.problems.append(f"{found.folder}: no cells here (data/<species>/*.parquet)")
        return
    cells = 0
    for name in shards:
        try:
            file = pq.ParquetFile(found.folder / name, page_checksum_verification=True)
            cells += file.metadata.num_rows
            problem = _problem_of_first_cell(file)
        except pa.ArrowException as error:
            problem = f"does not open ({error})"
        if problem:
            found.problems.append(f"{name}: {problem}")
    recorded = _recorded_cells(manifest)
    if recorded is not None and recorded != cells:
        found.problems.append(f"manifest.json: says {recorded} cells, the shards hold {cells}")
    if not found.problems:
        found.passed.append(f"cells: {cells:,} in {len(shards)} shards")
        _check_streaming(found)


def _problem_of_first_cell(file: Any) -> str | None:
    columns = set(file.schema_arrow.names)
    if not {"genes", "counts"} <= columns:
        return f"lacks column {sorted({'genes', 'counts'} - columns)[0]!r}"
    batch = next(file.iter_batches(batch_size=1, columns=["genes", "counts"]), None)
    if batch is None or batch.num_rows == 0:
        return None
    cell = batch.to_pylist()[0]
    if len(cell["genes"]) != len(cell["counts"]):
        return "genes and counts of the first cell differ in length"
    ascending = all(a < b for a, b in zip(cell["genes"], cell["genes"][1:], strict=False))
    return None if ascending else "genes of the first cell are not ascending"


def _recorded_cells(manifest: dict[str, Any]) -> int | None:
    species = manifest.get("species")
    if not isinstance(species, dict):
        return None
    return sum(int(totals["cells"]) for totals in species.values())


def _check_streaming(found: Verification) -> None:
    from datasets import load_dataset

    card = found.folder / "README.md"
    if not card.is_file():
        found.skipped.append("load_dataset: no README.md that says where the cells are")
        return
    try:
        stream = load_dataset(str(found.folder), split="train", streaming=True)
        first = next(iter(stream))
    except (ValueError, OSError, StopIteration, RuntimeError) as error:
        found.problems.append(
            f"README.md: load_dataset fails ({str(error).splitlines()[0] if str(error) else error!r})"
        )
        return
    found.passed.append(f"load_dataset: streams; columns {', '.join(sorted(first))}")


def to_json(found: Verification) -> str:
    """The findings as JSON, for other programs."""
    content = {
        "source": found.source,
        "kind": found.kind,
        "ok": found.ok,
        "passed": found.passed,
        "skipped": found.skipped,
        "problems": found.problems,
    }
    return json.dumps(content, indent=2)
