"""Chinese texts with their words, and the tagger MONPA as a Hugging Face folder."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tfxformer.files import replacing_folder, write_json, write_text

_SPECIAL = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}


def read_words(path: Path) -> list[list[tuple[str, str]]]:
    """The paragraphs of a file with one a line, each word written "word/tag"."""
    lines = path.read_text(encoding="utf-8").split("\n")
    return [[tuple(word.rsplit("/", 1)) for word in line.split()] for line in lines if line.strip()]


def read_reviews(folder: Path, shortest: int = 5) -> list[tuple[str, str]]:
    """(text, "negative" or "positive"), sorted, each once; what stands under both or is shorter is left out."""
    texts = {
        name: {line.strip() for line in (folder / file).read_text(encoding="utf-8").split("\n")}
        for name, file in (("negative", "neg.txt"), ("positive", "pos.txt"))
    }
    both = set.intersection(*texts.values())
    return sorted((text, name) for name, of in texts.items() for text in of - both if len(text) >= shortest)


def write_monpa(source: Path, folder: Path) -> Path:
    """Writes the package's files as a folder that transformers reads: an ALBERT with a label for each character.

    Its transitions between labels (a CRF) are left out: neither transformers nor we have a place for them.
    """
    from tfxformer.checkpoints import PickleFile
    from tfxformer.checkpoints.files import safetensors

    labels, tokens = (_tokens(source / name) for name in ("pos.tgt.dict", "vocab_monpa.vocab"))
    config = json.loads((source / "albert_config" / "albert_config_mo.json").read_text(encoding="utf-8"))
    config |= {
        "architectures": ["AlbertForTokenClassification"],
        "model_type": "albert",
        "pad_token_id": tokens.index("[PAD]"),
        "id2label": dict(enumerate(labels)),
        "label2id": {label: index for index, label in enumerate(labels)},
    }
    settings = {
        "tokenizer_class": "BertTokenizer",
        **{"do_lower_case": False, "strip_accents": False, "model_max_length": 202},  # 200 and what stands around them
        **_SPECIAL,
        "unk_token": "[UNK]",
    }
    with replacing_folder(folder) as new:
        write_json(new / "config.json", config)
        write_json(new / "tokenizer_config.json", settings)
        write_text(new / "vocab.txt", "".join(f"{token}\n" for token in tokens))
        tensors = PickleFile(source / "model" / "monpa_model_8000.pt")
        kept = {name: tensors[name] for name in tensors if not name.startswith("crf_layer.")}
        safetensors.write(new / "model.safetensors", kept)
    return folder


def _tokens(path: Path) -> list[str]:
    """The tokens of a file in the order of their ids: one that comes again has no second id, and takes no row."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return list(dict.fromkeys(re.split("[ \t]+", line)[0] for line in lines))
