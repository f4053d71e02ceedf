"""Write the card of a checkpoint, adapter, prior table or corpus from what was recorded, and from nothing else."""

import os
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from ..tokenization.files import atomic_path
from ..tokenization.manifest import MANIFEST, read_manifest, record_files, write_manifest
from ..tokenization.sources import resolve
from . import facts
from .benchmarks import Score, eval_results, pretraining_scores, read_scores, tables
from .curves import curve_table, draw_curves
from .limits import limits_of
from .snippets import USAGE_END, USAGE_START, labels_of, usage

CARD = "README.md"
CITATION = """```bibtex
@article{yang2024genecompass,
  title   = {GeneCompass: deciphering universal gene regulatory mechanisms with a knowledge-informed cross-species
             foundation model},
  author  = {Yang, Xiaodong and Liu, Guole and Feng, Guihai and others},
  journal = {Cell Research},
  volume  = {34},
  pages   = {830--845},
  year    = {2024},
  doi     = {10.1038/s41422-024-01034-y}
}
```"""


def write_card(
    folder: str | os.PathLike[str],
    *,
    repo: str | None = None,
    revision: str | None = None,
    results: Iterable[str | os.PathLike[str]] = (),
    figures: Iterable[str | os.PathLike[str]] = (),
    licence: str | None = None,
    title: str | None = None,
    corpus: str | os.PathLike[str] | None = None,
) -> Path:
    """Write ``README.md`` beside the weights and bring the manifest up to date.

    Parameters
    ----------
    folder
        Checkpoint, adapter, prior tables or corpus. Without a manifest, one is written too.
    repo, revision
        What the usage program names: ``owner/name`` and tag. None: the folder's own name; `push` fills it in.
    results
        Benchmark JSON files of this very model; every method in them is shown.
    figures
        PNG or SVG files to show; they are copied into ``figures/``.
    licence
        SPDX id of the weights' or data's licence; None keeps what an earlier card says, else "not recorded".
    title
        Heading; None: the folder's name.
    corpus
        For a checkpoint: the corpus that it was trained on (folder or repository), for the table of sources.

    Returns
    -------
    Path
        The card.

    Raises
    ------
    InputError
        The folder is none of these kinds, or a result or figure cannot be read.

    Examples
    --------
    >>> write_card("runs/tiny", results=["benchmark_results/annotation.json"])  # doctest: +SKIP
    """
    folder = Path(folder)
    kind = facts.kind_of(folder)
    scores = _scores(folder, results)
    drawn = draw_curves(facts.history(folder), folder) if kind in ("checkpoint", "adapter") else []
    shown = [*drawn, *_copy_figures(figures, folder)]
    if not (folder / MANIFEST).is_file():
        _write_manifest(folder, kind)
    front = _front_matter(folder, kind, scores, licence, title)
    context = _context(folder, kind, scores, shown, repo, revision, front, title)
    if corpus is not None:
        context["sources"] = facts.source_rows(resolve(corpus, repo_type="dataset"))
    body = _environment().get_template(f"{kind}.md").render(context)
    with atomic_path(folder / CARD) as temporary:
        temporary.write_text(f"---\n{_yaml(front)}---\n{_tidy(body)}", encoding="utf-8")
    _check_metadata(folder / CARD)
    record_files(folder, [CARD, *(figure["path"] for figure in shown)])
    return folder / CARD


def write_table_card(table: str | os.PathLike[str]) -> Path | None:
    """Write card and manifest for the folder of a prior table, if prior tables are all that it holds.

    Parameters
    ----------
    table
        A prior table that was just written.

    Returns
    -------
    Path or None
        The card; None where the folder holds anything else, whose README.md may be somebody's own.
    """
    folder = Path(table).resolve().parent
    documented = (folder / MANIFEST).is_file() and facts.kind_of(folder) == "priors"
    others = [path for path in folder.iterdir() if path.suffix != ".safetensors" and not path.name.startswith(".")]
    if not documented and others:
        return None
    (folder / MANIFEST).unlink(missing_ok=True)
    return write_card(folder)


def _write_manifest(folder: Path, kind: str) -> None:
    """Seal a folder that came without a manifest; the known answer needs the package's classes."""
    from .. import modeling_genecompass  # noqa: F401

    write_manifest(folder, kind)


def _scores(folder: Path, results: Iterable[str | os.PathLike[str]]) -> list[Score]:
    evaluation = facts.training_record(folder).get("evaluation")
    measured = pretraining_scores(evaluation) if isinstance(evaluation, dict) else []
    return measured + read_scores(results)


def _copy_figures(figures: Iterable[str | os.PathLike[str]], folder: Path) -> list[dict[str, str]]:
    import shutil

    from ..tokenization.errors import InputError

    shown = []
    for figure in map(Path, figures):
        if figure.suffix.lower() not in (".png", ".svg") or not figure.is_file():
            raise InputError(f"{figure}: not a PNG or SVG file; cards show only these")
        target = folder / "figures" / figure.name
        if figure.resolve() != target.resolve():
            with atomic_path(target) as temporary:
                shutil.copyfile(figure, temporary)
        shown.append({"path": f"figures/{figure.name}", "caption": figure.stem.replace("_", " ")})
    return shown


def _front_matter(
    folder: Path, kind: str, scores: list[Score], licence: str | None, title: str | None
) -> dict[str, Any]:
    earlier = _earlier_front_matter(folder / CARD)
    licence = licence or earlier.get("license")
    if kind == "corpus":
        return {**({"license": licence} if licence else {}), **{k: v for k, v in earlier.items() if k != "license"}}
    from huggingface_hub import ModelCardData

    settings = facts.read_json(folder / "adapter_config.json")
    base = settings.get("base_model_name_or_path") if kind == "adapter" else None
    results = eval_results(scores)
    front = ModelCardData(
        license=licence,
        library_name={"checkpoint": "transformers", "adapter": "peft"}.get(kind, "genecompass"),
        pipeline_tag=_pipeline_tag(folder, kind),
        tags=["genecompass", "biology", "single-cell", "transcriptomics", *_species(folder)],
        base_model=base if base and not Path(base).is_absolute() and base.count("/") == 1 else None,
        model_name=title or folder.resolve().name if results else None,
        eval_results=results or None,
    )
    return dict(front.to_dict())


def _earlier_front_matter(card: Path) -> dict[str, Any]:
    if not card.is_file():
        return {}
    text = card.read_text(encoding="utf-8")
    if not text.startswith("---\n"):
        return {}
    try:
        content = yaml.safe_load(text[4:].partition("\n---")[0])
    except yaml.YAMLError:
        return {}
    return content if isinstance(content, dict) else {}


def _pipeline_tag(folder: Path, kind: str) -> str | None:
    if kind == "priors":
        return None
    if kind == "adapter":
        task = facts.read_json(folder / "adapter_config.json").get("task_type")
        return {"SEQ_CLS": "text-classification", "TOKEN_CLS": "token-classification"}.get(task or "")
    names = " ".join(facts.read_json(folder / "config.json").get("architectures") or [])
    if "SequenceClassification" in names:
        return "text-classification"
    return "token-classification" if "TokenClassification" in names else "feature-extraction"


def _species(folder: Path) -> list[str]:
    return list(facts.read_json(folder / "config.json").get("species") or [])


def _context(
    folder: Path,
    kind: str,
    scores: list[Score],
    figures: list[dict[str, str]],
    repo: str | None,
    revision: str | None,
    front: dict[str, Any],
    title: str | None,
) -> dict[str, Any]:
    name = folder.resolve().name
    address = f"{repo}@{revision}" if repo and revision else repo or name
    manifest = read_manifest(folder)
    settings = facts.read_json(folder / "adapter_config.json")
    base = settings.get("base_model_name_or_path")
    history = facts.history(folder)
    return {
        "title": title or (repo.split("/")[1] if repo else name),
        "summary": _summary(folder, kind),
        "usage_start": USAGE_START,
        "usage_end": USAGE_END,
        "program": usage(folder, kind, repo or name, revision),
        "repo": repo or name,
        "address": address,
        "first_species": (_species(folder) or ["human"])[0],
        "model_rows": _adapter_rows(settings, folder) if kind == "adapter" else facts.model_rows(folder),
        "training_rows": facts.training_rows(folder) if kind in ("checkpoint", "adapter") else [],
        "corpus_rows": facts.corpus_rows(folder) if kind == "corpus" else [],
        "priors": facts.prior_rows(folder) if kind == "priors" else [],
        "versions": facts.text_of(manifest.get("versions")),
        "base": f"`{Path(base).name if Path(base).is_absolute() else base}`" if base else facts.NOT_RECORDED,
        "labels": facts.text_of(labels_of(folder)),
        "figures": figures,
        "curve": curve_table(history),
        "tables": tables(scores),
        "limits": limits_of(folder, kind),
        "licence": _licence_text(front),
        "sources": facts.source_rows(folder),
        "citation": CITATION,
        "has_answer": "outputs" in (manifest.get("known_answer") or {}),
    }


def _licence_text(front: dict[str, Any]) -> str:
    parts = [front.get("license"), front.get("license_name"), front.get("license_details")]
    return ", ".join(str(part) for part in parts if part) or facts.NOT_RECORDED


def _adapter_rows(settings: dict[str, Any], folder: Path) -> facts.Rows:
    own = facts.model_rows(folder)
    keys = ("peft_type", "task_type", "r", "lora_alpha", "lora_dropout", "target_modules", "modules_to_save")
    rows = [(key, facts.text_of(_sorted(settings.get(key)))) for key in keys if key in settings]
    return [*rows, ("Numbers in the adapter", dict(own)["Trainable parameters"]), ("Labels", dict(own)["Labels"])]


def _sorted(value: Any) -> Any:
    return sorted(set(value)) if isinstance(value, (list, set)) else value


def _summary(folder: Path, kind: str) -> str:
    if kind == "checkpoint":
        config = facts.read_json(folder / "config.json")
        species = " and ".join(config.get("species") or []) or "species not recorded"
        what = (config.get("architectures") or ["GeneCompass model"])[0]
        inputs = "gene ids, values and prior knowledge" if config.get("priors") else "gene ids and values"
        return (
            f"`{what}`: a GeneCompass model of single-cell transcriptomes ({species}). A cell is the ranked list of "
            f"its expressed genes; {inputs} are embedded together."
        )
    if kind == "adapter":
        return "A parameter-efficient adapter for a GeneCompass model of single-cell transcriptomes."
    if kind == "priors":
        return "Prior-knowledge tables about genes, one row per token of a GeneCompass vocabulary."
    totals = read_manifest(folder).get("species") or {}
    cells = "; ".join(f"{facts.text_of(total.get('cells'))} {name} cells" for name, total in totals.items())
    return f"Raw single-cell counts: {cells or 'number of cells not recorded'}."


def _environment() -> Any:
    from jinja2 import DictLoader, Environment, StrictUndefined

    folder = files("genecompass.model_cards").joinpath("templates")
    texts = {entry.name: entry.read_text(encoding="utf-8") for entry in folder.iterdir() if entry.name.endswith(".md")}
    # Markdown, not HTML: nothing is to be escaped.
    return Environment(loader=DictLoader(texts), undefined=StrictUndefined, trim_blocks=True, autoescape=False)


def _tidy(body: str) -> str:
    """Blank lines as Markdown wants them: one between blocks, none inside a table."""
    lines: list[str] = []
    in_code = False
    for line in body.splitlines():
        in_code ^= line.startswith("```")
        if line.strip() or in_code or (lines and lines[-1].strip()):
            lines.append(line.rstrip())
    return "\n".join(lines).strip() + "\n"


def _yaml(front: dict[str, Any]) -> str:
    return str(yaml.safe_dump(front, sort_keys=False, allow_unicode=True))


def _check_metadata(card: Path) -> None:
    """Parse the card back with the Hub's own classes; a card that they refuse must not stay unnoticed."""
    from huggingface_hub import RepoCard

    RepoCard.load(card)
