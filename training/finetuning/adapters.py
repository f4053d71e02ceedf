"""Train a little instead of everything: LoRA, DoRA, IA3 through PEFT, and BitFit."""

from typing import Any

from torch import nn
from transformers import PreTrainedModel

METHODS = ("lora", "dora", "ia3", "bitfit")

# Head layers that have no pretrained counterpart: always trained in full and saved with the adapter.
_HEADS = {
    "GeneCompassForSequenceClassification": ["pooler", "classifier"],
    "GeneCompassForTokenClassification": ["classifier"],
}
_TASKS = {
    "GeneCompassModel": "FEATURE_EXTRACTION",
    "GeneCompassForSequenceClassification": "SEQ_CLS",
    "GeneCompassForTokenClassification": "TOKEN_CLS",
}
_QUERY_VALUE = ("attention.query", "attention.value")
_IA3_TARGETS = r".*layers\.\d+\.(attention\.key|attention\.value|output)"
_IA3_FEEDFORWARD = r".*layers\.\d+\.output"


def lora_config(
    model: PreTrainedModel,
    method: str = "lora",
    r: int = 8,
    *,
    alpha: int | None = None,
    dropout: float = 0.0,
    target_modules: list[str] | str | None = None,
    train_head: bool = True,
    **options: Any,
) -> Any:
    """Build the PEFT configuration that suits a GeneCompass model.

    Parameters
    ----------
    model
        Any of the four GeneCompass models.
    method
        ``lora`` (default), ``dora`` (weight-decomposed LoRA) or ``ia3`` (learned scales). ``bitfit`` is no PEFT
        method; see `add_adapter`.
    r
        Rank of the update; 8 on query and value adds about 0.3 M parameters to Base.
    alpha
        Scale of the update; twice the rank where None.
    dropout
        Dropout on the update's input.
    target_modules
        Layers to adapt; ``attention.query`` and ``attention.value`` where None (for ``ia3``: key, value and the
        feed-forward output). ``"all-linear"`` takes every linear layer.
    train_head
        Train and save the classification head in full, which no pretrained checkpoint has.
    **options
        Passed on to ``peft.LoraConfig`` or ``peft.IA3Config``.

    Returns
    -------
    peft.PeftConfig
        For ``peft.get_peft_model``.

    Raises
    ------
    ValueError
        Unknown method, or a folded model, which cannot train.

    Examples
    --------
    >>> from genecompass.modeling_genecompass import GeneCompassConfig, GeneCompassModel
    >>> lora_config(GeneCompassModel(GeneCompassConfig.tiny(vocab_size=10))).r
    8
    """
    from peft import IA3Config, LoraConfig

    _refuse_folded(model)
    name = type(model).__name__
    common: dict[str, Any] = {
        "task_type": _TASKS.get(name),
        "modules_to_save": list(_HEADS[name]) if train_head and name in _HEADS else None,
        **options,
    }
    if method == "ia3":
        targets = _IA3_TARGETS if target_modules is None else target_modules
        feedforward = common.pop("feedforward_modules", _IA3_FEEDFORWARD if target_modules is None else [])
        return IA3Config(target_modules=targets, feedforward_modules=feedforward, **common)
    if method not in ("lora", "dora"):
        hint = "; use add_adapter for it" if method == "bitfit" else ""
        raise ValueError(f"method {method!r} has no PEFT configuration; expected lora, dora or ia3{hint}")
    return LoraConfig(
        r=r,
        lora_alpha=2 * r if alpha is None else alpha,
        lora_dropout=dropout,
        use_dora=method == "dora",
        target_modules=list(_QUERY_VALUE) if target_modules is None else target_modules,
        **common,
    )


def add_adapter(model: PreTrainedModel, method: str = "lora", r: int = 8, **options: Any) -> nn.Module:
    """Make a model train a few parameters only.

    Parameters
    ----------
    model
        Any of the four GeneCompass models, changed in place.
    method
        ``lora``, ``dora``, ``ia3``, or ``bitfit``: all biases and the head train, nothing is added, so the result
        is the same model and is saved as a whole checkpoint.
    r, **options
        As for `lora_config`.

    Returns
    -------
    torch.nn.Module
        A ``peft.PeftModel`` (``save_pretrained`` writes the adapter, ``merge_and_unload()`` gives back a plain
        model), or for ``bitfit`` the model itself.

    Examples
    --------
    >>> from genecompass.modeling_genecompass import GeneCompassConfig, GeneCompassModel
    >>> model = add_adapter(GeneCompassModel(GeneCompassConfig.tiny(vocab_size=10)), "bitfit")
    >>> sorted({name.rsplit(".", 1)[-1] for name, p in model.named_parameters() if p.requires_grad})
    ['bias']
    """
    _refuse_folded(model)
    if method not in METHODS:
        raise ValueError(f"unknown adapter method {method!r}; expected one of {', '.join(METHODS)}")
    if method == "bitfit":
        head = tuple(f"{layer}." for layer in _HEADS.get(type(model).__name__, []))
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name.endswith("bias") or name.startswith(head) if head else name.endswith("bias"))
        return model
    from peft import get_peft_model

    return get_peft_model(model, lora_config(model, method, r, **options))


def trainable_share(model: nn.Module) -> tuple[int, int]:
    """Count parameters: (trainable, all). Prior-knowledge tables are buffers and count in neither.

    Examples
    --------
    >>> trainable_share(nn.Linear(3, 2))
    (8, 8)
    """
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return sum(size for size, trains in sizes if trains), sum(size for size, _ in sizes)


def _refuse_folded(model: PreTrainedModel) -> None:
    if getattr(model.config, "folded_rows", None) is not None:
        raise ValueError("this model's prior knowledge is folded, for inference only; adapt the unfolded checkpoint")
