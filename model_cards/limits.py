"""What a card must warn of, as far as the recorded facts tell."""

from pathlib import Path

from . import facts


def limits_of(folder: Path, kind: str) -> list[str]:
    """Limits in words, in the order of their weight.

    Parameters
    ----------
    folder
        The published folder.
    kind
        ``checkpoint``, ``adapter``, ``priors`` or ``corpus``.
    """
    if kind == "corpus":
        return [
            "Transcriptome only: RNA counts of dissociated cells or nuclei; no protein, chromatin or location.",
            "Cell types, tissues, donors and protocols are as unevenly covered as in the sources.",
            "Annotations in the kept obs columns are the sources' own and are not harmonised.",
        ]
    if kind == "priors":
        return [
            "Knowledge is uneven: well-studied genes have more of it; a gene without any may well have a function.",
            "Tables serve one vocabulary; with another gene table their rows mean other genes.",
            "Whoever evaluates on the same databases that a table was made from measures the table.",
        ]
    limits = ["Transcriptome only: RNA counts in, nothing about proteins, chromatin or location."]
    limits.append(_species_limit(folder))
    limits.append(_masking_limit(folder))
    limits.append("Genes outside the vocabulary are not seen; look at the coverage report before trusting a result.")
    limits.append("In-silico deletions shift an embedding, they measure no effect; compare with matched random genes.")
    if kind == "adapter":
        limits.append("Scores are calibrated, if at all, on cells like those it was trained on.")
    return limits


def _species_limit(folder: Path) -> str:
    species = facts.read_json(folder / "config.json").get("species") or facts.training_record(folder).get("species")
    if isinstance(species, str):
        species = [species]
    if not species:
        return "Species that it was trained on: not recorded here; see the base checkpoint."
    return f"Trained on {' and '.join(species)} only; other species need homologs, and that is untested."


def _masking_limit(folder: Path) -> str:
    record = facts.training_record(folder)
    task = ((record.get("config") or {}).get("masking") or {}).get("task")
    if task == "published":
        return (
            "Pre-trained by the published masking, which leaks: a hidden gene keeps its rank, so visible neighbours "
            "bracket its value and nearly name it. Low pre-training losses say little; see the yardsticks."
        )
    if task == "hidden_rank":
        return (
            "Pre-trained with hidden ranks: a hidden gene shows neither rank nor value. Its losses cannot be compared "
            "with those under the published masking."
        )
    return "Masking of the pre-training, and so what it leaks: not recorded."
