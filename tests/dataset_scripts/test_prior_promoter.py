"""Promoters: exact windows on both strands, contig names, the offline default and a tiny DNA model."""

import gzip

import numpy as np
import pandas as pd
import pytest
import torch
from genecompass.dataset_scripts.prior_knowledge.dna_model import DnaModelEmbedder
from genecompass.dataset_scripts.prior_knowledge.genome import (
    GenomeSource,
    bridge_contigs,
    promoter_windows,
    read_starts,
)
from genecompass.dataset_scripts.prior_knowledge.promoter import KmerEmbedder, build_promoter
from genecompass.dataset_scripts.prior_knowledge.tables import known_rows, write_priors
from genecompass.tokenization.errors import InputError
from genecompass.tokenization.gene_table import GeneTable

COMPLEMENT = {"A": "T", "C": "G", "G": "C", "T": "A", "N": "N"}
GENES = ("plus", "minus", "left_end", "right_end", "with_n", "elsewhere", "absent", "all_n")


def reverse_complement(text):
    return "".join(COMPLEMENT[base] for base in reversed(text))


@pytest.fixture
def table():
    ids = [f"ENSG{i:011d}" for i in range(len(GENES))]
    return GeneTable.from_genes(pd.DataFrame({"gene_id": ids, "symbol": GENES, "species": "human"}))


@pytest.fixture
def genome(tmp_path):
    """One contig of 20,000 bases, with 100 N at 15,000 and 5,000 N at its own contig."""
    rng = np.random.default_rng(0)
    text = "".join(rng.choice(list("ACGT"), 20000))
    text = text[:15000] + "N" * 100 + text[15100:]
    lines = [">1", *[text[i : i + 61] for i in range(0, len(text), 61)], ">N", "n" * 5000]
    (tmp_path / "genome.fa").write_text("\n".join(lines).replace("N", "n").replace(">n", ">N") + "\n")
    return text


# gene, contig, first base, last base (1-based), strand
PLACES = [
    ("plus", "chr1", 4001, 6000, "+"),
    ("minus", "chr1", 7001, 9000, "-"),
    ("left_end", "chr1", 101, 900, "+"),
    ("right_end", "chr1", 19001, 19900, "-"),
    ("with_n", "chr1", 14901, 15900, "+"),
    ("elsewhere", "chr9", 100, 200, "+"),
    ("all_n", "chrN", 2001, 2900, "+"),
]


def write_gtf(path, places=PLACES, extra=()):
    lines = ["#!genome"]
    for name, contig, first, last, strand in places:
        identifier = f"ENSG{GENES.index(name):011d}.5"
        start = f'{contig}\tx\t{{}}\t{first}\t{last}\t.\t{strand}\t.\tgene_id "{identifier}"; gene_name "{name}";'
        lines.append(start.format("gene"))
        lines.append(start.format("transcript") + f' transcript_id "T{name}"; tag "Ensembl_canonical";')
    lines += list(extra)
    text = "\n".join(lines) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def windows(tmp_path, table, gtf=None, **options):
    gtf = gtf or write_gtf(tmp_path / "a.gtf.gz")
    return promoter_windows(GenomeSource(tmp_path / "genome.fa", gtf, "human"), table, **options)


def test_exact_windows_on_both_strands(tmp_path, table, genome):
    found, report = windows(tmp_path, table)
    token = {name: 2 + place for place, name in enumerate(GENES)}
    # plus: the first transcribed base is 4001 (1-based), the 501st of the window
    assert found[token["plus"]] == genome[3500:6000]
    # minus: the first transcribed base is 9000; downstream is towards lower positions
    assert found[token["minus"]] == reverse_complement(genome[7000:9500])
    assert found[token["minus"]][500] == COMPLEMENT[genome[8999]]
    assert found[token["left_end"]] == "N" * 400 + genome[0:2100]
    assert found[token["right_end"]] == "N" * 400 + reverse_complement(genome[17900:20000])
    assert found[token["with_n"]] == genome[14400:16900]
    assert found.str.len().eq(2500).all()
    assert report == {
        "genes": 8,
        "sequences": 5,
        "not_annotated": 1,
        "on_missing_contigs": 1,
        "missing_contigs": ["chr9"],
        "bridged_contigs": 2,
        "cut_at_contig_end": 2,
        "with_n": 4,
        "only_n": 1,
    }


def test_bgzipped_genome(tmp_path, table, genome):
    bgzf = pytest.importorskip("Bio.bgzf")
    with bgzf.BgzfWriter(tmp_path / "packed.fa.gz") as handle:
        handle.write((tmp_path / "genome.fa").read_bytes())
    gtf = write_gtf(tmp_path / "a.gtf")
    packed, _ = promoter_windows(GenomeSource(tmp_path / "packed.fa.gz", gtf, "human"), table)
    pd.testing.assert_series_equal(packed, windows(tmp_path, table)[0])


def test_other_window_sizes(tmp_path, table, genome):
    found, _ = windows(tmp_path, table, upstream=3, downstream=4)
    assert found[2] == genome[3997:4004]
    assert found[3] == reverse_complement(genome[8996:9003])
    with pytest.raises(InputError, match="empty"):
        windows(tmp_path, table, upstream=0, downstream=0)


def test_canonical_transcript_decides(tmp_path):
    row = 'chr1\tx\ttranscript\t{}\t{}\t.\t+\t.\tgene_id "ENSG00000000000"; transcript_id "{}"; {}'
    gtf = tmp_path / "a.gtf"
    gtf.write_text(
        "\n".join(
            [
                row.format(100, 900, "T1", 'transcript_type "lncRNA"; tag "basic";'),
                row.format(200, 950, "T2", 'transcript_type "protein_coding"; tag "basic"; tag "MANE_Select";'),
                row.format(300, 990, "T3", 'transcript_type "protein_coding"; tag "basic";'),
            ]
        )
    )
    assert read_starts(gtf)["start"].tolist() == [199]
    gtf.write_text("\n".join([row.format(5, 900, "T1", ""), row.format(3, 999, "T2", "")]))
    assert read_starts(gtf)["start"].tolist() == [2]


def test_contig_bridges():
    assert bridge_contigs(["1", "X", "MT"], ["chr1", "chrX", "chrM"]) == {"1": "chr1", "X": "chrX", "MT": "chrM"}
    assert bridge_contigs(["chr1"], ["chr1", "1"]) == {"chr1": "chr1"}
    assert bridge_contigs(["chr1"], ["scaffold"]) == {}


def test_bad_genomes(tmp_path, table, genome):
    with pytest.raises(InputError, match="no such annotation"):
        windows(tmp_path, table, gtf=tmp_path / "none.gtf")
    with pytest.raises(InputError, match="same assembly"):
        windows(tmp_path, table, gtf=write_gtf(tmp_path / "b.gtf", [("plus", "chr77", 100, 200, "+")]))
    (tmp_path / "c.gtf").write_text("chr1 100 200\n")
    with pytest.raises(InputError, match="line 1 has 1 columns"):
        windows(tmp_path, table, gtf=tmp_path / "c.gtf")
    (tmp_path / "d.gtf").write_text('chr1\tx\tgene\t1\t9\t.\t+\t.\tgene_id "OTHER";\n')
    with pytest.raises(InputError, match="none of its 1 genes is a human gene"):
        windows(tmp_path, table, gtf=tmp_path / "d.gtf")
    (tmp_path / "genome.fa.gz").write_bytes(gzip.compress((tmp_path / "genome.fa").read_bytes()))
    with pytest.raises(InputError, match="bgzip"):
        promoter_windows(GenomeSource(tmp_path / "genome.fa.gz", tmp_path / "b.gtf", "human"), table)
    with pytest.raises(InputError, match="unknown species"):
        promoter_windows(GenomeSource(tmp_path / "genome.fa", tmp_path / "b.gtf", "rat"), table)


# ---- k-mers


def test_kmer_frequencies_by_hand():
    embed = KmerEmbedder(width=4, k=2)
    counts = embed.frequencies("AACNGT") * 3
    words = ["AA", "AC", "GT"]
    places = [4 * "ACGT".index(word[0]) + "ACGT".index(word[1]) for word in words]
    assert np.flatnonzero(counts).tolist() == sorted(places)
    np.testing.assert_allclose(counts[places], 1)
    assert not embed.frequencies("NNN").any()


def test_offline_default_end_to_end(tmp_path, table, genome):
    source = GenomeSource(tmp_path / "genome.fa", write_gtf(tmp_path / "a.gtf.gz"), "human")
    for name in ("1", "2"):
        prior = build_promoter([source], table, embedder=KmerEmbedder(width=16, k=3))
        write_priors(tmp_path / f"{name}.safetensors", [prior])
    assert (tmp_path / "1.safetensors").read_bytes() == (tmp_path / "2.safetensors").read_bytes()
    assert prior.matrix.shape == (10, 16)
    assert known_rows(prior.matrix).sum() == 5
    record = prior.metadata["sources"][0]
    assert record["file"] == "genome.fa"
    assert record["on_missing_contigs"] == 1
    assert prior.metadata["coverage"]["human"]["without_knowledge"] == 3


def test_kmers_tell_composition_apart():
    rng = np.random.default_rng(0)
    rich = ["".join(rng.choice(list("ACGT"), 500, p=[0.1, 0.4, 0.4, 0.1])) for _ in range(10)]
    poor = ["".join(rng.choice(list("ACGT"), 500, p=[0.4, 0.1, 0.1, 0.4])) for _ in range(10)]
    vectors = KmerEmbedder(width=8, k=3)(pd.Series(rich + poor))
    cosine = np.corrcoef(vectors)
    assert cosine[:10, :10].mean() > cosine[:10, 10:].mean() + 0.5


def test_bad_kmers():
    with pytest.raises(InputError, match="width 100 is not between"):
        KmerEmbedder(width=100, k=2)
    with pytest.raises(InputError, match="length 9"):
        KmerEmbedder(width=8, k=9)


# ---- DNA models through transformers


def save_model(folder, words, special, split=True, positions=40):
    """A tiny BERT with a word-level tokenizer: DNABERT's form (k-mers split by blanks)."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    vocabulary = {word: place for place, word in enumerate([*special, *words])}
    if split:
        tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    else:
        tokenizer = Tokenizer(models.BPE(vocabulary, [("A", "C"), ("G", "T")], unk_token="[UNK]"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=12,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=positions,
    )
    BertModel(config).save_pretrained(folder)
    return folder


SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@pytest.fixture
def kmer_model(tmp_path):
    words = [a + b + c for a in "ACGT" for b in "ACGT" for c in "ACGT"]
    return save_model(tmp_path / "model", words, SPECIAL)


def sequences(lengths=(100, 30, 64, 100), seed=0):
    rng = np.random.default_rng(seed)
    return pd.Series(["".join(rng.choice(list("ACGT"), length)) for length in lengths])


def test_kmer_tokenizer_is_found_and_chunks_are_averaged(kmer_model):
    embed = DnaModelEmbedder(kmer_model)
    assert embed.kmer == 3
    assert embed.chunk == 38
    texts = sequences((90,))
    words = [texts[0][place : place + 3] for place in range(88)]
    expected, weights = [], []
    for start in range(0, 88, 38):
        ids = torch.tensor([embed.tokenizer(" ".join(words[start : start + 38]))["input_ids"]])
        with torch.inference_mode():
            states = embed.model(ids)[0][0, 1:-1]
        expected.append(states.mean(0).numpy())
        weights.append(len(states))
    np.testing.assert_allclose(embed(texts)[0], np.average(expected, axis=0, weights=weights), atol=1e-5)


def test_batching_changes_nothing(kmer_model):
    one, many = DnaModelEmbedder(kmer_model, batch_size=1), DnaModelEmbedder(kmer_model, batch_size=7)
    np.testing.assert_allclose(one(sequences()), many(sequences()), atol=1e-5)


def test_cls_pooling_and_plain_text_tokenizer(tmp_path):
    folder = save_model(tmp_path / "bpe", ["A", "C", "G", "T", "AC", "GT"], SPECIAL, split=False)
    embed = DnaModelEmbedder(folder, pooling="cls")
    assert embed.kmer == 0
    text = pd.Series(["ACGTACGTTT"])
    with torch.inference_mode():
        expected = embed.model(torch.tensor([embed.tokenizer(text[0])["input_ids"]]))[0][0, 0].numpy()
    np.testing.assert_allclose(embed(text)[0], expected, atol=1e-5)


def test_resumes_without_running_the_model_again(kmer_model, tmp_path, monkeypatch):
    monkeypatch.setattr("genecompass.dataset_scripts.prior_knowledge.dna_model._SEQUENCES_A_PART", 2)
    first = DnaModelEmbedder(kmer_model, resume=tmp_path / "parts")
    broken = iter([True])

    def fails_later(chunks, forward=first._forward):
        if next(broken, None) is None:
            raise KeyboardInterrupt
        return forward(chunks)

    monkeypatch.setattr(first, "_forward", fails_later)
    with pytest.raises(KeyboardInterrupt):
        first(sequences())
    assert len(list((tmp_path / "parts").iterdir())) == 1
    second = DnaModelEmbedder(kmer_model, resume=tmp_path / "parts")
    calls = []
    forward = second._forward
    monkeypatch.setattr(second, "_forward", lambda chunks: calls.append(1) or forward(chunks))
    np.testing.assert_allclose(second(sequences()), DnaModelEmbedder(kmer_model)(sequences()), atol=1e-6)
    assert len(calls) == 1
    cls = DnaModelEmbedder(kmer_model, pooling="cls", resume=tmp_path / "parts")
    assert not np.allclose(cls(sequences()), second(sequences()))


def test_model_to_table(tmp_path, table, genome, kmer_model):
    source = GenomeSource(tmp_path / "genome.fa", write_gtf(tmp_path / "a.gtf.gz"), "human")
    prior = build_promoter([source], table, embedder=DnaModelEmbedder(kmer_model), upstream=50, downstream=60)
    assert prior.matrix.shape == (10, 12)
    assert prior.metadata["settings"]["model"] == "model"
    assert prior.metadata["settings"]["kmer"] == 3


def test_no_dna_model(tmp_path):
    with pytest.raises(InputError, match="cannot be loaded"):
        DnaModelEmbedder(tmp_path)
    folder = save_model(tmp_path / "english", ["the", "cell"], SPECIAL)
    with pytest.raises(InputError, match="is it a DNA model"):
        DnaModelEmbedder(folder)
    with pytest.raises(InputError, match="pooling"):
        DnaModelEmbedder(folder, pooling="max")
