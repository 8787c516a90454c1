"""Tokenizers of the kinds that released checkpoints have, folder by folder as those are, against transformers.

Each is trained on a few lines and written as the family's own files have it: class, normalizer, pre-tokenizer, decoder,
what stands around a text, and added tokens with their flags.
"""

import json
from pathlib import Path

import pytest
import spm_cases
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as Backend

from tfxformer.text import Tokenizer

STORED = json.loads((Path(__file__).parent / "fixtures" / "expected.json").read_text(encoding="utf-8"))
FAST = "PreTrainedTokenizerFast"
CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = rf"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{REST}"
QWEN2 = rf"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{REST}"
DEEPSEEK = (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", r"[一-龥ࠀ-一가-퟿]+")
TEXTS = [*STORED["texts"], *spm_cases.NASTY, *spm_cases.MARKED]
MARKS = ["a <x> b", "a<x>b", "<x>", "  <x>  ", "a <x>\n\nb", "b<x><x>c", "A <X> é<x>e\u0301", "ab<x>1", "<x>\t<x>"]


def split(*patterns, digits=False):
    """Cuts by patterns one after the other, then bytes as letters."""
    cuts = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in patterns]
    cuts += [pre_tokenizers.Digits(individual_digits=True)] if digits else []
    return pre_tokenizers.Sequence([*cuts, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def around(begin=(), end=()):
    """Tokens in front of a text and behind it, in both of a pair."""
    return lambda backend: processors.TemplateProcessing(
        single=[*begin, "$A", *end],
        pair=[*begin, "$A", *end, *(f"{token}:1" for token in begin), "$B:1", *(f"{token}:1" for token in end)],
        special_tokens=[(token, backend.token_to_id(token)) for token in {*begin, *end}],
    )


def byte_level(cut, special, normalizer=None, process=None, ignore_merges=False):
    """Byte-level BPE."""
    backend = Backend(models.BPE(ignore_merges=ignore_merges))
    backend.normalizer, backend.pre_tokenizer, backend.decoder = normalizer, cut, decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=500, initial_alphabet=alphabet, special_tokens=special, show_progress=False
    )
    return trained(backend, trainer, process or (lambda backend: processors.ByteLevel(trim_offsets=False)))


def trained(backend, trainer, process):
    backend.train_from_iterator(spm_cases.CORPUS * 2, trainer)
    backend.post_processor = process(backend)
    return backend


BYTES = [f"<0x{index:02X}>" for index in range(256)]
SPACES = "▁"


def byte_fallback(special, begin, prefix, process=None):
    """SentencePiece's BPE as `tokenizers` has it; of Llama 2 and Phi-3 with a space in front of a text."""
    steps = [normalizers.Prepend(SPACES)] if prefix else []
    backend = Backend(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    backend.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", SPACES)])
    if not prefix:
        backend.normalizer = normalizers.Replace(" ", SPACES)
        backend.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    cleaned = [decoders.Replace(SPACES, " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence([*cleaned, *([decoders.Strip(" ", 1, 0)] if prefix else [])])
    trainer = trainers.BpeTrainer(vocab_size=650, special_tokens=[*special, *BYTES], show_progress=False)
    made = trained(backend, trainer, process or around(begin))
    parts = json.loads(made.to_str())
    parts["added_tokens"] = [token for token in parts["added_tokens"] if token["content"] not in BYTES]
    return Backend.from_str(json.dumps(parts))


def digits():
    """Digits one by one, the rest as GPT-2 cuts it."""
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(False)])


def added(*tokens, **flags):
    return [AddedToken(token, **{"special": True, "normalized": False, **flags}) for token in tokens]


ENDS = {"bos_token": "<|begin|>", "eos_token": "<|end|>"}
PIECES = ["<unk>", "<s>", "</s>"]
ROLES = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
# Kind -> (class, roles, backend, added tokens).
KINDS = {
    "GPT-2": (
        "GPT2Tokenizer", {"eos_token": "<|end|>"},
        lambda: byte_level(pre_tokenizers.ByteLevel(False), ["<|end|>"]), [],
    ),
    "GPT-NeoX": (
        "GPTNeoXTokenizer", {"eos_token": "<|endoftext|>"},
        lambda: byte_level(pre_tokenizers.ByteLevel(False), ["<|endoftext|>", "<|padding|>"], normalizers.NFC()),
        added(" " * 4, " " * 3, " " * 2, special=False, normalized=True),
    ),
    "Llama 3": (
        FAST, ENDS, lambda: byte_level(split(LLAMA3), [*ENDS.values()], None, around(["<|begin|>"]), True),
        added("<|eot|>"),
    ),
    "Qwen 2 and 3": (
        "Qwen2Tokenizer", {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
        lambda: byte_level(split(QWEN2), ["<|endoftext|>", "<|im_end|>"], normalizers.NFC()),
        added("<tool_call>", special=False),
    ),
    "SmolLM": ("GPT2Tokenizer", {"eos_token": "<|end|>"}, lambda: byte_level(digits(), ["<|end|>"]), []),
    "ModernBERT": (
        FAST, {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "mask_token": "[MASK]"},
        lambda: byte_level(
            pre_tokenizers.ByteLevel(False), ["[CLS]", "[SEP]", "[PAD]"], normalizers.NFC(),
            around(["[CLS]"], ["[SEP]"]),
        ),
        [
            *added("|||IP_ADDRESS|||", " " * 4, " " * 3, " " * 2, special=False, normalized=True),
            *added("[MASK]", lstrip=True),
        ],
    ),
    "Cohere": (
        "CohereTokenizer", {"bos_token": "<BOS_TOKEN>", "eos_token": "<|END|>", "pad_token": "<PAD>"},
        lambda: byte_level(
            digits(), ["<PAD>", "<BOS_TOKEN>", "<|END|>"], normalizers.NFC(), around(["<BOS_TOKEN>"]),
        ),
        [],
    ),
    "GLM-4": (
        FAST, {"eos_token": "<|end|>"},
        lambda: byte_level(split(LLAMA3), ["<|end|>", "[gMASK]", "<sop>"], None, around(["[gMASK]", "<sop>"]), True),
        added("<|user|>"),
    ),
    "DeepSeek": (
        "LlamaTokenizerFast", ENDS,
        lambda: byte_level(split(*DEEPSEEK, digits=True), [*ENDS.values()], None, around(["<|begin|>"])), [],
    ),
    "Llama 2": ("LlamaTokenizer", ROLES, lambda: byte_fallback(PIECES, ["<s>"], True), added("<|user|>")),
    "Llama 2, older": (
        "LlamaTokenizerFast", {**ROLES, "legacy": True}, lambda: byte_fallback(PIECES, ["<s>"], True),
        added("<|user|>"),
    ),
    "Llama 2, without a space in front": (
        "LlamaTokenizer", {**ROLES, "add_prefix_space": False}, lambda: byte_fallback(PIECES, ["<s>"], True), [],
    ),
    "Mistral": (
        "LlamaTokenizer", {**ROLES, "model_type": "mistral"}, lambda: byte_fallback(PIECES, ["<s>"], True),
        added("[INST]"),
    ),
    "Phi-3": (
        "LlamaTokenizerFast", {**ROLES, "model_type": "phi3", "eos_token": "<|end|>"},
        lambda: byte_fallback(PIECES, [], True, lambda backend: None), added("<|end|>", "<|user|>", rstrip=True),
    ),
    "Gemma": (
        "GemmaTokenizer", {"bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>", "pad_token": "<pad>"},
        lambda: byte_fallback(["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"], ["<bos>"], False),
        added("\n\n", "▁▁", "<table>", special=False),
    ),
    "every flag": (
        FAST, {"eos_token": "<|end|>"},
        lambda: byte_level(pre_tokenizers.ByteLevel(False), ["<|end|>"], normalizers.Lowercase()),
        [
            *added("<left>", lstrip=True), *added("<right>", rstrip=True), *added("<both>", lstrip=True, rstrip=True),
            *added("<Normal>", "É", special=False, normalized=True), *added("<Plain>", special=False),
            *added("word", special=False, single_word=True), *added("<one>", single_word=True, lstrip=True),
        ],
    ),
}  # fmt: skip


def write(folder, kind):
    """A folder of a kind, as a checkpoint has it."""
    name, roles, make, tokens = KINDS[kind]
    backend = make()
    backend.add_tokens([token for token in tokens if not token.special])
    backend.add_special_tokens([token for token in tokens if token.special])
    backend.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": name, **roles}
    if kind := config.pop("model_type", None):
        (folder / "config.json").write_text(json.dumps({"model_type": kind}), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def check(folder, texts):
    """Ids, decoded texts and roles as transformers has them."""
    import transformers

    theirs, ours = transformers.AutoTokenizer.from_pretrained(folder), Tokenizer.from_pretrained(folder)
    ids = ours.ids(texts)
    for text, found in zip(texts, ids, strict=True):
        assert found == theirs(text)["input_ids"], text
    assert ours.ids(texts, special_tokens=False) == [
        theirs(text, add_special_tokens=False)["input_ids"] for text in texts
    ]
    for skipped in (False, True):
        assert ours.decode(ids, skipped) == [theirs.decode(row, skip_special_tokens=skipped) for row in ids]
    pair = ours.encode(["the cat"], ["12 dogs"]) if ours.padding_id is not None else None
    assert pair is None or pair.token_ids[0].tolist() == theirs("the cat", "12 dogs")["input_ids"]
    roles = ("pad", "bos", "eos", "unk", "mask", "cls", "sep")
    found = (ours.padding_id, ours.bos_id, ours.eos_id, ours.unknown_id, ours.mask_id, ours.cls_id, ours.sep_id)
    stated = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    for role, index in zip(roles, found, strict=True):
        if f"{role}_token" in stated:  # a class has names for the others, too, which a real vocabulary holds
            assert index == getattr(theirs, f"{role}_token_id"), role
    return ours


@pytest.mark.reference
@pytest.mark.parametrize("kind", KINDS)
def test_ids_are_those_of_transformers_before_and_after_saving(kind, tmp_path):
    texts = [*TEXTS, *(mark.replace("<x>", token.content) for token in KINDS[kind][3] for mark in MARKS)]
    ours = check(write(tmp_path, kind), texts)
    ours.save_pretrained(tmp_path / "saved")
    assert check(tmp_path / "saved", texts).ids(texts) == ours.ids(texts)
