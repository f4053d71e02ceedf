"""The lines of Python that load what was published; cards show them and tests run them."""

import gzip
import json
from pathlib import Path
from typing import Any

USAGE_START, USAGE_END = "<!-- usage: start -->", "<!-- usage: end -->"
_AUTO_BY_TASK = {"SEQ_CLS": "AutoModelForSequenceClassification", "TOKEN_CLS": "AutoModelForTokenClassification"}


def auto_class(folder: Path) -> str:
    """The Auto class that gives back what was saved, from the checkpoint's own map."""
    config = _json(folder / "config.json")
    architecture = (config.get("architectures") or [""])[0]
    for auto, target in config.get("auto_map", {}).items():
        if isinstance(target, str) and target.rpartition(".")[2] == architecture:
            return auto
    return "AutoModel"


def loading_line(folder: Path, kind: str, repo: str, revision: str | None) -> str:
    """One line that loads a published folder.

    Examples
    --------
    >>> loading_line(Path("."), "corpus", "someone/cells", "v1")
    'load_dataset("someone/cells", revision="v1", streaming=True)'
    """
    pin = f', revision="{revision}"' if revision else ""
    if kind == "corpus":
        return f'load_dataset("{repo}"{pin}, streaming=True)'
    if kind == "priors":
        return f'snapshot_download("{repo}"{pin}, repo_type="dataset")'
    if kind == "adapter":
        return f'PeftModel.from_pretrained(model, "{repo}"{pin})'
    return f'{auto_class(folder)}.from_pretrained("{repo}"{pin}, trust_remote_code=True)'


def usage(folder: Path, kind: str, repo: str, revision: str | None = None) -> str:
    """A complete program, ready to paste, that loads and uses a published folder with or without the package.

    Parameters
    ----------
    folder
        Where the files are now.
    kind
        ``checkpoint``, ``adapter``, ``priors`` or ``corpus``.
    repo
        What to write in the program: repository name or local folder.
    revision
        Pinned where given.
    """
    if kind == "corpus":
        return _use_corpus(folder, repo, revision)
    if kind == "priors":
        return _use_priors(folder, repo, revision)
    if kind == "adapter":
        return _use_adapter(folder, repo, revision)
    return _use_checkpoint(folder, repo, revision)


def replace_usage(card: str, program: str) -> str:
    """Put another program into the usage section of a card; cards without that section stay as they are."""
    before, start, rest = card.partition(USAGE_START)
    _, end, after = rest.partition(USAGE_END)
    return f"{before}{start}\n```python\n{program}```\n{end}{after}" if start and end else card


def _pin(revision: str | None) -> str:
    return f', revision="{revision}"' if revision else ""


def _example_cell(folder: Path) -> str:
    """Counts of four genes that the vocabulary knows, and their species."""
    table = folder / "genes.tsv.gz"
    known = (_json(folder / "manifest.json").get("known_answer") or {}).get("processor")
    if known:
        return f'genes, counts, species = {json.dumps(known["genes"][:4])}, [[7, 3, 1, 1]], "{known["species"]}"'
    if not table.is_file():
        return 'genes, counts, species = ["ENSG00000254647", "ENSG00000115263"], [[7, 3]], "human"'
    with gzip.open(table, "rt", encoding="utf-8") as lines:
        header = next(lines).rstrip("\n").split("\t")
        rows = [
            dict(zip(header, line.rstrip("\n").split("\t"), strict=True))
            for _, line in zip(range(6), lines, strict=False)
        ]
    genes = [row for row in rows if row["species"]][:4]
    names = json.dumps([row["gene_id"] for row in genes])
    counts = [[7, 3, 1, 1][: len(genes)]]
    return f'genes, counts, species = {names}, {counts}, "{genes[0]["species"]}"'


def _use_checkpoint(folder: Path, repo: str, revision: str | None) -> str:
    auto, pin = auto_class(folder), _pin(revision)
    shown = {
        "AutoModelForSequenceClassification": "print(model.config.id2label[int(output.logits.argmax())])",
        "AutoModelForTokenClassification": "print(output.logits.shape)  # cells x genes x labels",
    }.get(auto, "print(output.last_hidden_state[:, 0].shape)  # the species slot stands for the cell")
    if auto not in ("AutoModelForSequenceClassification", "AutoModelForTokenClassification"):
        auto = "AutoModel"
    return f"""import torch
from transformers import {", ".join(sorted([auto, "AutoProcessor"]))}

processor = AutoProcessor.from_pretrained("{repo}"{pin}, trust_remote_code=True)
model = {auto}.from_pretrained("{repo}"{pin}, trust_remote_code=True).eval()

{_example_cell(folder)}
batch = processor(counts, genes=genes, species=species, return_tensors="pt")
with torch.inference_mode():
    output = model(**batch)
{shown}
"""


def _use_adapter(folder: Path, repo: str, revision: str | None) -> str:
    settings = _json(folder / "adapter_config.json")
    auto = _AUTO_BY_TASK.get(settings.get("task_type") or "", "AutoModel")
    base = settings.get("base_model_name_or_path") or "owner/base"
    base_pin = _pin(settings.get("revision"))
    labels = labels_of(folder)
    extra = f", num_labels={len(labels)}" if labels else ""
    return f"""import torch
from peft import PeftModel
from transformers import {", ".join(sorted([auto, "AutoProcessor"]))}

processor = AutoProcessor.from_pretrained("{base}"{base_pin}, trust_remote_code=True)
model = {auto}.from_pretrained(
    "{base}"{base_pin}, trust_remote_code=True{extra}
)
model = PeftModel.from_pretrained(model, "{repo}"{_pin(revision)}).eval()
labels = {labels!r}

{_example_cell(folder)}
batch = processor(counts, genes=genes, species=species, return_tensors="pt")
with torch.inference_mode():
    output = model(**batch)
print(output.logits.softmax(-1))  # in the order of `labels`
"""


def _use_corpus(folder: Path, repo: str, revision: str | None) -> str:
    return f"""from datasets import load_dataset

cells = load_dataset("{repo}"{_pin(revision)}, split="train", streaming=True)
cell = next(iter(cells))
print(cell["species"], len(cell["genes"]), sum(cell["counts"]))
"""


def _use_priors(folder: Path, repo: str, revision: str | None) -> str:
    tables = sorted(path.name for path in folder.glob("*.safetensors"))
    name = tables[0] if tables else "priors.safetensors"
    on_hub = "/" in repo
    where = f'snapshot_download("{repo}"{_pin(revision)}, repo_type="dataset")' if on_hub else f'"{repo}"'
    hub = "from huggingface_hub import snapshot_download\n" if on_hub else ""
    return f"""{hub}from safetensors.torch import load_file

tables = load_file({where} + "/{name}")
print({{prior: tuple(table.shape) for prior, table in tables.items()}})  # rows follow the gene table's tokens
"""


def labels_of(folder: Path) -> list[str]:
    """Label names of a classifier, from what fine-tuning recorded or from its config; empty where unknown."""
    recorded = _json(folder / "finetuning.json").get("labels")
    if recorded:
        return list(recorded)
    names = _json(folder / "config.json").get("id2label") or {}
    return [names[key] for key in sorted(names, key=int)]


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
