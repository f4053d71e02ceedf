"""``genecompass benchmark``: one module a benchmark, ``benchmark_<name>.py`` beside this one."""

from typing import ClassVar

from genecompass.commands.grammar import new_app
from genecompass.lazy import LazyGroup


class _Benchmarks(LazyGroup):
    verbs: ClassVar[dict[str, str]] = {
        "standard": "The whole table of a checkpoint, from a plan of data; resumable.",
        "pretraining": "Tiny models over corpus sizes and priors, with seeds and curves.",
        "priors": "Does each prior-knowledge table carry signal? Held-out edges and family members.",
        "annotation": "Cell-type annotation on a held-out data set, with baselines.",
        "cross-species": "Annotation from one species to another, with baselines.",
        "gene-classification": "Gene classification in gene-level folds, with baselines.",
        "zero-shot": "Embeddings without training: neighbours, clusters, batches.",
        "grn": "Network inference by BEELINE's measures, with baselines.",
        "perturbation": "In-silico deletions against known targets and a matched null.",
        "fate": "Cell fate: factors of documented recipes, beside ranking by fold change.",
        "response-genes": "Effects of perturbed genes never seen, with baselines.",
        "response-doses": "Effects of drugs at doses, or in patients, never seen, with baselines.",
        "response-signatures": "Effects of compounds never seen, from their structure, with baselines.",
        "response-simulation": "Response networks where the truth is known: pass or fail.",
    }
    modules: ClassVar[str] = "genecompass.commands.benchmark_{}"


app = new_app(
    "Benchmarks: the same splits for the model and for simple baselines, several seeds, no choice on test data.",
    cls=_Benchmarks,
)
