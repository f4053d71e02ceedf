"""How cells are batched never changes what comes out for a cell."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

LENGTHS = st.lists(st.integers(0, 24), min_size=1, max_size=6)
OPTIONS = {"deadline": None, "max_examples": 25, "suppress_health_check": [HealthCheck.function_scoped_fixture]}
CLOSE = {"rtol": 0, "atol": 1e-5}


@pytest.fixture(scope="module", params=["eager", "sdpa"])
def model(make, request):
    return make(attn_implementation=request.param)


@pytest.fixture(scope="module")
def alone(model, pad):
    """Each cell by itself, without padding."""

    def encode(cell):
        if not len(cell["input_ids"]):
            return model(**pad([cell], to=1)).last_hidden_state[0, :1]
        return model(**pad([cell])).last_hidden_state[0]

    return encode


@settings(**OPTIONS)
@given(lengths=LENGTHS, extra=st.integers(0, 6), seed=st.integers(0, 99))
def test_padding_and_batch_size(model, alone, make_cells, pad, lengths, extra, seed):
    cells = make_cells(lengths, seed)
    batch = pad(cells, to=min(24, max(1, *lengths, 1) + extra))
    states = model(**batch).last_hidden_state
    for i, cell in enumerate(cells):
        torch.testing.assert_close(states[i, : 1 + lengths[i]], alone(cell), **CLOSE)


@settings(**OPTIONS)
@given(lengths=LENGTHS, seed=st.integers(0, 99))
def test_packing(model, alone, make_cells, pack, lengths, seed):
    cells = make_cells(lengths, seed)
    states = model(**pack(cells)).last_hidden_state[0]
    assert len(states) == sum(lengths) + len(lengths)
    for cell, found in zip(cells, states.split([1 + n for n in lengths]), strict=True):
        torch.testing.assert_close(found, alone(cell), **CLOSE)


@settings(**OPTIONS)
@given(lengths=LENGTHS, seed=st.integers(0, 99), data=st.data())
def test_order_and_buckets(model, make_cells, pad, lengths, seed, data):
    cells = make_cells(lengths, seed)
    together = model(**pad(cells)).last_hidden_state[:, 0]
    order = data.draw(st.permutations(range(len(cells))))
    torch.testing.assert_close(
        model(**pad([cells[i] for i in order])).last_hidden_state[:, 0], together[order], **CLOSE
    )
    # buckets of similar length, two cells each
    by_length = sorted(range(len(cells)), key=lambda i: lengths[i])
    for start in range(0, len(cells), 2):
        some = by_length[start : start + 2]
        found = model(**pad([cells[i] for i in some])).last_hidden_state[:, 0]
        torch.testing.assert_close(found, together[some], **CLOSE)


@settings(**OPTIONS)
@given(lengths=st.lists(st.integers(1, 20), min_size=2, max_size=6), seed=st.integers(0, 99), data=st.data())
def test_permuting_species_permutes_outputs(model, make_cells, pad, lengths, seed, data):
    cells = make_cells(lengths, seed)
    order = data.draw(st.permutations(range(len(cells))))
    species = [cell["species"] for cell in cells]
    by_species = {s: model(**pad([{**cell, "species": s} for cell in cells])).last_hidden_state for s in (0, 1)}
    shuffled = [{**cell, "species": species[i]} for cell, i in zip(cells, order, strict=True)]
    states = model(**pad(shuffled)).last_hidden_state
    for i, cell in enumerate(shuffled):
        torch.testing.assert_close(
            states[i, : 1 + lengths[i]], by_species[cell["species"]][i, : 1 + lengths[i]], **CLOSE
        )


def test_species_matters(model, make_cells, pad):
    cells = make_cells([9], species=[0])
    human, mouse = (model(**{**pad(cells), "species": torch.tensor([s])}).last_hidden_state for s in (0, 1))
    assert (human - mouse).abs().max() > 1e-2
    torch.testing.assert_close(model(**{**pad(cells), "species": None}).last_hidden_state, human)
    torch.testing.assert_close(model(**{**pad(cells), "species": torch.tensor([[1]])}).last_hidden_state, mouse)


@pytest.mark.parametrize(
    "head", ["AutoModelForMaskedLM", "AutoModelForSequenceClassification", "AutoModelForTokenClassification"]
)
def test_heads_on_packed_cells(make, classes, make_cells, pad, pack, head):
    model = make(classes[head])
    lengths = [4, 0, 11, 7]
    cells = make_cells(lengths)
    padded, packed = model(**pad(cells)).logits, model(**pack(cells)).logits
    if head == "AutoModelForSequenceClassification":
        torch.testing.assert_close(packed, padded, **CLOSE)
    else:
        wanted = torch.cat([padded[i, :n] for i, n in enumerate(lengths)])
        torch.testing.assert_close(packed[0], wanted, rtol=0, atol=1e-5 * float(wanted.detach().abs().max()))


def test_mean_pooling_of_packed_cells(make, classes, make_cells, pad, pack):
    model = make(classes["AutoModelForSequenceClassification"], classifier_pooling="mean")
    cells = make_cells([4, 0, 11, 7])
    torch.testing.assert_close(model(**pack(cells)).logits, model(**pad(cells, to=20)).logits, **CLOSE)


def test_packed_cells_train_as_padded_ones_do(make, classes, make_cells, pad, pack):
    model = make(classes["AutoModelForMaskedLM"])
    lengths = [5, 9, 3]
    cells = make_cells(lengths)
    gradients = []
    for batch in (pad(cells), pack(cells)):
        model.zero_grad()
        labels = batch["input_ids"].clone()
        if "attention_mask" in batch:
            labels[batch["attention_mask"] == 0] = -100
        model(**batch, labels=labels, labels_values=batch["values"]).loss.backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        scale = max(1e-3, float(gradient.abs().max()))
        torch.testing.assert_close(gradients[1][name], gradient, rtol=0, atol=1e-4 * scale, msg=name)


@pytest.mark.slow
def test_flex_attention_gives_the_same(make, make_cells, pad):
    cells = make_cells([5, 9, 16])
    usual, flex = make(attn_implementation="sdpa"), make(attn_implementation="flex_attention")
    batch = pad(cells)
    kept = torch.nn.functional.pad(batch["attention_mask"], (1, 0), value=1).bool()
    with torch.no_grad():
        found = flex(**batch).last_hidden_state[kept]
        torch.testing.assert_close(found, usual(**batch).last_hidden_state[kept], **CLOSE)


def test_an_all_padding_cell_keeps_its_species_slot(model, make_cells, pad):
    states = model(**pad(make_cells([0, 0]), to=4)).last_hidden_state
    assert torch.isfinite(states).all()
    assert (states[0, 0] - states[1, 0]).abs().max() > 1e-2  # one human, one mouse


def test_packed_cells_read_in_place_are_those_read_one_by_one(make, monkeypatch):
    """The kernel is a GPU's; a stand-in with its signature, on any device, shows what it is given."""
    from genecompass.modeling_genecompass import encoder_genecompass as encoder
    from genecompass.modeling_genecompass.inputs_genecompass import PackedCells

    def kernel(query, key, value, ends, key_ends, longest, key_longest):
        assert ends.dtype == key_ends.dtype == torch.int32
        assert longest == key_longest == int(ends.diff().max())
        cells = zip(ends.tolist()[:-1], ends.tolist()[1:], strict=True)
        parts = [[states[a:b].transpose(0, 1) for states in (query, key, value)] for a, b in cells]
        return torch.cat([torch.nn.functional.scaled_dot_product_attention(*part).transpose(0, 1) for part in parts])

    monkeypatch.setattr(encoder, "varlen_attn", kernel)
    attention = make().layers[0].attention
    packed = PackedCells(torch.tensor([4, 0, 11, 7]), num_genes=22)
    row = torch.randn(1, packed.num_slots, 16, generator=torch.Generator().manual_seed(0))
    one_by_one, in_place = (
        attention(row, None, encoder.PackedLayout(packed, how))[0] for how in ("one_by_one", "in_place")
    )
    torch.testing.assert_close(in_place, one_by_one, **CLOSE)
