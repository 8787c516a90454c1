"""Which pieces have which ids: the tokenizers of families that come as SentencePiece models.

Source: the tokenizer classes of transformers by the names in `READERS`, and the converters of its versions 4 and 5.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers, processors

from tfxformer import json_files
from tfxformer.text.sentencepieces import language_codes as codes
from tfxformer.text.sentencepieces.backend import UNMET, Row, make_backend
from tfxformer.text.sentencepieces.languages import Languages
from tfxformer.text.sentencepieces.model_file import USER_DEFINED, SentencePieceModel, read_model
from tfxformer.text.sentencepieces.rules import SETTINGS

MODEL_FILES = ("spiece.model", "sentencepiece.bpe.model", "sentencepiece.model", "tokenizer.model", "spm.model")
_SENTINELS = {"T5Tokenizer": 100, "ByT5Tokenizer": 125}  # where the settings do not say `extra_ids`
_PEGASUS_OFFSET = 103  # likewise `offset`
_ROLES = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
_OF_BERT = {
    **{"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"},
    **{"bos_token": "[CLS]", "eos_token": "[SEP]"},
}
_FAIRSEQ = ("<s>", "<pad>", "</s>", "<unk>")
_LEAST_KNOWN = 0.5  # of the pieces of a model file, those that the vocabulary beside it must have

Parts = tuple[str, dict[str, Any]]  # the text of a tokenizer.json, and the settings
Reader = Callable[[Path, dict[str, Any]], Parts]


def _model_file(folder: Path) -> Path:
    found = [folder / name for name in MODEL_FILES if (folder / name).is_file()]
    if not found:
        there = sorted(path.name for path in folder.iterdir())
        raise FileNotFoundError(f"{str(folder)!r} has no SentencePiece model ({', '.join(MODEL_FILES)}), only {there}.")
    return found[0]


def _t5(folder: Path, config: dict[str, Any]) -> Parts:
    """T5, mT5, UMT5: the pieces, then sentinels, the last one first."""
    model = read_model(_model_file(folder))
    count = _whole(config, "extra_ids", _SENTINELS["T5Tokenizer"])
    known = {piece.text for piece in model.pieces}
    sentinels = [f"<extra_id_{index}>" for index in reversed(range(count))]
    rows = [*_own_rows(model), *(Row(token) for token in sentinels if token not in known)]
    return _parts(model, rows, config, sentinels, ["$A", "</s>"], ["$A", "</s>", "$B", "</s>"])


def _pegasus(folder: Path, config: dict[str, Any]) -> Parts:
    """Pegasus: its pieces begin behind the tokens of its training, of which two are masks."""
    model = read_model(_model_file(folder))
    offset = _whole(config, "offset", _PEGASUS_OFFSET)
    config = {"mask_token": "<mask_2>", **config}
    training = [] if not offset else ["<mask_1>", "<mask_2>", *(f"<unk_{index}>" for index in range(2, offset))]
    rows = [Row("<pad>"), Row("</s>"), *map(Row, training), *_own_rows(model)[2:]]
    return _parts(model, rows, config, training, ["$A", "</s>"], ["$A", "$B", "</s>"])


def _fairseq(languages: list[str], folder: Path, config: dict[str, Any], mask: bool = True) -> Parts:
    """mBART, mBART-50, NLLB, PLBART: fairseq's four tokens in the place of SentencePiece's three, codes, a mask."""
    model = read_model(_model_file(folder))
    first = [piece.text for piece in model.pieces[:3]]
    if first != ["<unk>", "<s>", "</s>"]:
        raise ValueError(f"{model.path!r} begins with {first}, where fairseq's models have <unk>, <s> and </s>.")
    tokens = [*languages, *(["<mask>"] if mask else [])]
    rows = [*map(Row, _FAIRSEQ), *_own_rows(model)[3:], *map(Row, tokens)]
    return _parts(model, rows, config, ["<s>", *tokens], ["$A", "</s>"], ["$A", "$B", "</s>"])


def _deberta(folder: Path, config: dict[str, Any]) -> Parts:
    """DeBERTa, versions 2 and 3: the pieces, BERT's tokens among them, and a mask behind them."""
    for key in ("do_lower_case", "split_by_punct"):
        if config.get(key):
            raise ValueError(f"tokenizer_config.json says {key}=true, which is not read of an spm.model alone.")
    model = read_model(_model_file(folder))
    known = {piece.text for piece in model.pieces}
    rows = [*_own_rows(model), *(Row(token) for token in ("[MASK]",) if token not in known)]
    single = ["[CLS]", "$A", "[SEP]"]
    return _parts(model, rows, config, [], single, [*single, "$B:1", "[SEP]:1"], roles=_OF_BERT)


def _plbart(folder: Path, config: dict[str, Any]) -> Parts:
    chosen = config.get("language_codes", "base")
    if chosen not in codes.PLBART:
        raise ValueError(f"tokenizer_config.json says language_codes={chosen!r}: wanted one of {[*codes.PLBART]}.")
    languages = [f"__{code}__" for code in codes.PLBART[chosen]]
    config = {"clean_up_tokenization_spaces": True, **config}
    if chosen == "multi":
        config = {"src_lang": "en_XX", **config}
    return _fairseq(languages, folder, config, mask=chosen == "base")


def _m2m(folder: Path, config: dict[str, Any]) -> Parts:
    """M2M-100: ids by vocab.json, languages behind them."""
    model, vocabulary = read_model(_model_file(folder)), _vocabulary(folder / "vocab.json")
    chosen = config.get("language_codes", "m2m100")
    if chosen not in codes.M2M100:
        raise ValueError(f"tokenizer_config.json says language_codes={chosen!r}: wanted one of {[*codes.M2M100]}.")
    languages = [f"__{code}__" for code in codes.M2M100[chosen]]
    rows = _vocabulary_rows(model, "vocab.json", [*vocabulary, *languages], ["<s>", *_ROLES.values(), *languages])
    tokens = ["<s>", *languages]
    return _parts(
        model, rows, config, tokens, ["$A", "</s>"], ["$A", "$B", "</s>"], count=len(vocabulary) + len(languages)
    )


def _marian(folder: Path, config: dict[str, Any]) -> Parts:
    """Marian: two models, which cut sources and targets into the pieces of one vocabulary, or each of its own."""
    config, made = {"model_max_length": 512, **config}, []
    of_targets = "target_vocab.json" if config.get("separate_vocabs") else "vocab.json"
    for name, ids in (("source.spm", "vocab.json"), ("target.spm", of_targets)):
        vocabulary = _vocabulary(folder / ids)
        languages = [token for token in vocabulary if token.startswith(">>") and token.endswith("<<")]
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{str(folder)!r} lacks {name}, which Marian's tokenizer is made of: fetch it too.")
        model = read_model(folder / name)
        rows = _vocabulary_rows(model, ids, vocabulary, [*_ROLES.values(), *languages])
        content, made_config = _parts(
            model, rows, config, languages, ["$A", "</s>"], ["$A", "$B", "</s>"], count=len(vocabulary)
        )
        if not model.byte_fallback:
            made_config[SETTINGS] |= _unknown_runs(model, rows)
        made.append((content, made_config))
    (content, config), (target, target_config) = made
    config[SETTINGS]["target"] = {"tokenizer": json.loads(target), "config": target_config}
    return content, config


def _byt5(folder: Path, config: dict[str, Any]) -> Parts:
    """ByT5: bytes behind three tokens, and sentinels behind them; no file says more."""
    count = _whole(config, "extra_ids", _SENTINELS["ByT5Tokenizer"]) or _SENTINELS["ByT5Tokenizer"]
    tokens = [*_ROLES.values(), *_bytes(), *(f"<extra_id_{index}>" for index in range(count))]
    backend = tokenizers.Tokenizer(models.BPE({token: index for index, token in enumerate(tokens)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = _template(backend, ["$A", "</s>"], ["$A", "</s>", "$B", "</s>"])
    ends = [AddedToken(token, lstrip=True, rstrip=True, normalized=False, special=True) for token in _ROLES.values()]
    sentinels = [AddedToken(token, normalized=False, special=True) for token in tokens[len(_ROLES) + 256 :]]
    backend.add_special_tokens([*ends, *sentinels])
    return backend.to_str(), {**_ROLES, **config}


def _bytes() -> list[str]:
    """The characters by which `tokenizers` writes the bytes 0 to 255."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = {byte: 256 + index for index, byte in enumerate(byte for byte in range(256) if byte not in plain)}
    return [chr(others.get(byte, byte)) for byte in range(256)]


# The tokenizer class of transformers, without "Fast" -> what reads such a folder.
READERS: dict[str, Reader] = {
    "T5Tokenizer": _t5,
    "MT5Tokenizer": _t5,
    "UMT5Tokenizer": _t5,
    "PegasusTokenizer": _pegasus,
    "MBartTokenizer": partial(_fairseq, codes.MBART),
    "MBart50Tokenizer": partial(_fairseq, codes.MBART50),
    "NllbTokenizer": partial(_fairseq, codes.NLLB),
    "DebertaV2Tokenizer": _deberta,
    "PLBartTokenizer": _plbart,
    "M2M100Tokenizer": _m2m,
    "MarianTokenizer": _marian,
    "ByT5Tokenizer": _byt5,
}
PYTHON_CLASSES = (
    "PLBartTokenizer",
    "M2M100Tokenizer",
    "MarianTokenizer",
    "ByT5Tokenizer",
)  # which transformers makes of no JSON


# Classes that make a tokenizer.json of theirs by rules of their own, where a file says others than the model's.
_REMADE = (*PYTHON_CLASSES, "DebertaV2Tokenizer")


def has_files(folder: Path, name: str | None) -> bool:
    """Whether a folder has what `read_folder` reads for a tokenizer class."""
    files = {"ByT5Tokenizer": (), "MarianTokenizer": ("source.spm", "target.spm")}.get(name, MODEL_FILES)
    return name in READERS and (not files or any((folder / file).is_file() for file in files))


def read_folder(folder: Path, config: dict[str, Any], name: str) -> Parts:
    """The tokenizer of a folder without tokenizer.json.

    Args:
        folder: with the model files of the family.
        config: of its settings.
        name: its tokenizer class, one of `READERS`.

    Returns:
        (the text of a tokenizer.json, settings with what it cannot say; see `sentencepieces.rules`).

    Raises:
        FileNotFoundError, ValueError: naming the file, for what is missing, damaged, or does not fit together.
    """
    written = "PreTrainedTokenizerFast" if name in _REMADE else name
    return READERS[name](folder, {**config, "tokenizer_class": written, SETTINGS: {"class": name}})


def _own_rows(model: SentencePieceModel) -> list[Row]:
    return [Row(piece.text, piece if piece.is_text else None) for piece in model.pieces]


def _vocabulary(path: Path) -> list[str]:
    """Tokens by their ids, of a vocab.json."""
    if not path.is_file():
        raise FileNotFoundError(
            f"{str(path.parent)!r} lacks {path.name}, which says the ids of its pieces: fetch it too."
        )
    ids = json_files.read_json(path)
    if sorted(ids.values(), key=str) != sorted(range(len(ids)), key=str):
        raise ValueError(f"{str(path)!r} must have an id for each token, 0 to {len(ids) - 1}, each once.")
    missing = [token for token in _ROLES.values() if token not in ids]
    if missing:
        raise ValueError(f"{str(path)!r} lacks {', '.join(missing)}: it is no vocabulary of such a model.")
    return sorted(ids, key=ids.__getitem__)


def _vocabulary_rows(model: SentencePieceModel, name: str, vocabulary: list[str], special: list[str]) -> list[Row]:
    """Rows by the vocabulary of a file of that name: pieces that it lacks stand behind them.

    A token that is no piece stands for characters that are none, as they come; with others in it, it is never met.
    """
    pieces = {piece.text: piece for piece in model.pieces if piece.is_text}
    special, known = set(special), set(vocabulary)
    share = sum(text in known for text in pieces) / max(len(pieces), 1)
    if share < _LEAST_KNOWN:
        raise ValueError(
            f"{model.path!r} and the {name} beside it do not belong together: it has {share:.0%} of the pieces."
        )
    rows = []
    for token in vocabulary:
        if token in special:
            rows.append(Row(token))
        elif token in pieces:
            rows.append(Row(token, pieces[token]))
        else:
            rows.append(Row(token if pieces.keys().isdisjoint(token) else token + UNMET))
    return [*rows, *(Row(text, piece) for text, piece in pieces.items() if text not in known)]


def _unknown_runs(model: SentencePieceModel, rows: list[Row]) -> dict[str, Any]:
    """Which characters are no pieces, for tokens that stand for several of them: see `sentencepieces.rules`."""
    characters = {piece.text for piece in model.pieces if piece.is_text and len(piece.text) == 1}
    runs = [row.token for row in rows if row.piece is None and len(row.token) > 1 and characters.isdisjoint(row.token)]
    return {"characters": "".join(sorted(characters)), "runs": [run for run in runs if UNMET not in run]}


def _parts(
    model: SentencePieceModel,
    rows: list[Row],
    config: dict[str, Any],
    tokens: list[str],
    single: list[str],
    pair: list[str],
    count: int | None = None,
    roles: Mapping[str, str] = _ROLES,
) -> Parts:
    """The backend of a family as JSON, and its settings.

    Args:
        model: whose rules are followed.
        rows: by their ids.
        config: the folder's settings.
        tokens: special ones besides those of the roles.
        single, pair: what stands around texts.
        count: rows of the model's table, where pieces have ids beyond; None for all.
        roles: the tokens of the family by their roles, where the settings state no others.
    """
    roles = {**roles, **_stated(config, roles)}
    names = {row.token for row in rows}
    missing = [token for token in roles.values() if token not in names]
    if missing:
        raise ValueError(f"{model.path!r} lacks {', '.join(map(repr, missing))}: it is no model of this family.")
    backend = make_backend(model, rows, roles["unk_token"], _added(config, [*roles.values(), *tokens]))
    spoken = Languages(backend, config, roles["eos_token"]).template(None)
    backend.post_processor = _template(backend, single, pair) if spoken is None else spoken
    whole = [piece.text for piece in model.pieces if piece.kind == USER_DEFINED]
    settings = {**config[SETTINGS], "charsmap": bool(model.charsmap), "whole": whole}
    if settings["class"] in PYTHON_CLASSES:  # which strip what they decode
        settings["strip"] = True
    if count is not None and count < len(rows):
        settings["rows"] = count
    return backend.to_str(), {**roles, **config, SETTINGS: settings}


def _template(backend: tokenizers.Tokenizer, single: list[str], pair: list[str]) -> processors.TemplateProcessing:
    tokens = dict.fromkeys(name for part in pair if not (name := part.partition(":")[0]).startswith("$"))
    ids = [(token, backend.token_to_id(token)) for token in tokens]
    return processors.TemplateProcessing(single=single, pair=pair, special_tokens=ids)


def _added(config: Mapping[str, Any], tokens: list[str]) -> list[AddedToken]:
    """Tokens that are found in a text before all else, with the flags that the settings declare."""
    declared = (config.get("added_tokens_decoder") or {}).values()
    flags = {token["content"]: token for token in declared if isinstance(token, Mapping) and "content" in token}
    made = []
    for token in dict.fromkeys(tokens):
        stated = flags.get(token, {"lstrip": token == "<mask>"})
        chosen = {flag: stated[flag] for flag in ("single_word", "lstrip", "rstrip") if flag in stated}
        special = not token.startswith(">>")  # a language that is written is text
        made.append(AddedToken(token, **chosen, normalized=False, special=special))
    return made


def _stated(config: Mapping[str, Any], roles: Mapping[str, str]) -> dict[str, str]:
    """The tokens of roles that the settings state, by their texts."""
    found = {}
    for role in roles:
        token = config.get(role)
        token = token.get("content") if isinstance(token, Mapping) else token
        if isinstance(token, str):
            found[role] = token
    return found


def _whole(config: Mapping[str, Any], key: str, default: int) -> int:
    value = config.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 10_000:
        raise ValueError(f"tokenizer_config.json says {key}={value!r}: wanted a whole number.")
    return value
