"""Tokenizer files: what a Hugging Face folder holds, read into a backend tokenizer and its settings."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, normalizers

from tfxformer import json_files
from tfxformer.files import recover, write_text
from tfxformer.text.chat import templates as chat
from tfxformer.text.sentencepieces import families, languages
from tfxformer.text.vocabulary import stored
from tfxformer.text.vocabulary.stored import SPECIAL_TOKENS

CHAT_TEMPLATE, CHAT_TEMPLATES = "chat_template.jinja", "additional_chat_templates"  # one, and a folder of others
# What another tokenizer may have left in a folder: all that a reader would mix with the new one's files.
OF_TARGETS = "target_tokenizer"
SAVED_FILES = (
    *("tokenizer.json", "tokenizer_config.json", CHAT_TEMPLATE, CHAT_TEMPLATES),
    *("vocab.txt", "vocab.json", "merges.txt", "special_tokens_map.json", "added_tokens.json"),
    *(*families.MODEL_FILES, "source.spm", "target.spm", "target_vocab.json", OF_TARGETS),
)
# Key of tokenizer_config.json -> the BertNormalizer's own name, and what an absent key means to a BERT class.
_BERT_SETTINGS = {
    "do_lower_case": ("lowercase", True),
    "strip_accents": ("strip_accents", None),
    "tokenize_chinese_chars": ("handle_chinese_chars", True),
}
# Tokenizer classes of transformers that build a part of the tokenizer from tokenizer_config.json, whatever
# tokenizer.json says; all others take the file as it stands.
_BERT_CLASSES = (
    *("BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer", "MobileBertTokenizer", "LayoutLMTokenizer"),
    *("SqueezeBertTokenizer", "LxmertTokenizer", "MPNetTokenizer"),
)
_LLAMA = "LlamaTokenizer"
# Kinds of models whose folders name that class, and which transformers opens by their tokenizer.json nevertheless.
_NOT_LLAMA = ("mistral", "phi3", "granite", "ernie4_5", "stablelm", "olmo2", "olmo3", "glm4")
_BYTE_LEVEL_CLASSES = ("GPT2Tokenizer", "RobertaTokenizer", "LongformerTokenizer", "BartTokenizer", "LEDTokenizer")
# The class of a folder that names none, by the model_type of its config.json.
_CLASSES = {
    **dict.fromkeys(("bert", "distilbert", "electra", "ernie", "mobilebert"), "BertTokenizer"),
    **{"mpnet": "MPNetTokenizer", "xlnet": "XLNetTokenizer"},
    **dict.fromkeys(("gpt2", "opt", "gpt_neo", "gptj", "gpt_bigcode", "codegen", "phi", "starcoder2"), "GPT2Tokenizer"),
    **dict.fromkeys(("roberta", "data2vec-text", "bart"), "RobertaTokenizer"),
    **dict.fromkeys(("qwen2", "qwen3"), "Qwen2Tokenizer"),
    **{"blenderbot": "BlenderbotTokenizer", "deberta": "DebertaTokenizer"},
    **dict.fromkeys(("t5", "mt5", "umt5"), "T5Tokenizer"),
    **{"pegasus": "PegasusTokenizer", "mbart": "MBartTokenizer", "plbart": "PLBartTokenizer"},
    **{"m2m_100": "M2M100Tokenizer", "marian": "MarianTokenizer", "deberta-v2": "DebertaV2Tokenizer"},
}
# Special tokens that a class has where no file says so, and others have by other names. Its <mask> eats the space
# in front of it.
_ROLES = {
    "MPNetTokenizer": {
        **{"cls_token": "<s>", "sep_token": "</s>", "bos_token": "<s>", "eos_token": "</s>"},
        **{"unk_token": "[UNK]", "pad_token": "<pad>", "mask_token": "<mask>"},
    },
    "XLNetTokenizer": {
        **{"cls_token": "<cls>", "sep_token": "<sep>", "bos_token": "<s>", "eos_token": "</s>"},
        **{"unk_token": "<unk>", "pad_token": "<pad>", "mask_token": "<mask>"},
    },
}
# What transformers replaces in decoded texts on request, in this order.
_CLEANED = (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're")


def read_folder(folder: str | Path) -> tuple[str, dict[str, Any]]:
    """The text of tokenizer.json and the settings (tokenizer_config.json, special_tokens_map.json)."""
    folder = Path(folder).expanduser()
    recover(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"No tokenizer folder {str(folder)!r}.")
    config = _read_json(folder / "special_tokens_map.json") | _read_json(folder / "tokenizer_config.json")
    if templates := _chat_templates(folder):  # they win over the key, as in transformers
        config["chat_template"] = templates
    name = _class_name(folder, config)
    config = {**({"tokenizer_class": name, **_ROLES[name]} if name in _ROLES else {}), **config}
    of_pieces = families.has_files(folder, name)
    # A class that transformers makes of no tokenizer.json is not made of one here either: another tool wrote it.
    if (folder / "tokenizer.json").is_file() and not (of_pieces and name in families.PYTHON_CLASSES):
        if name in languages.CLASSES:
            config.setdefault("tokenizer_class", name)  # says where a language's code stands
        content = read_tokenizer_json(folder / "tokenizer.json")
        if name == _LLAMA and _read_json(folder / "config.json").get("model_type") in _NOT_LLAMA:
            name = config["tokenizer_class"] = "PreTrainedTokenizerFast"  # what says so where config.json is away
        content = as_its_class_reads(content, config, name)
        return _with_declared_tokens(content, config), config
    if of_pieces:
        content, config = families.read_folder(folder, config, name)
        return _with_declared_tokens(content, config), config
    if stored.is_byte_level(folder, name):
        backend = stored.byte_level(folder, config, name)
        _add_tokens(backend, config, _read_json(folder / "added_tokens.json"))
        return _with_declared_tokens(backend.to_str(), config), config
    if not (folder / "vocab.txt").is_file():
        found = sorted(path.name for path in folder.iterdir())
        raise FileNotFoundError(
            f"{str(folder)!r} holds neither tokenizer.json nor vocab.txt, only {found}, and says the tokenizer class "
            f"{name!r}. SentencePiece models are read of {', '.join(families.READERS)}, vocab.json with merges.txt of "
            f"{', '.join(stored.BYTE_LEVEL)}; other older formats: open the folder once with transformers' "
            "AutoTokenizer and save_pretrained it, which writes tokenizer.json of all classes but those in Python "
            "alone (Blenderbot-small's, CTRL's): without these files in its folder such a model opens, and takes ids."
        )
    backend = stored.wordpiece(
        stored.read_vocabulary(folder / "vocab.txt"),
        lowercase=config.get("do_lower_case", True),
        strip_accents=config.get("strip_accents"),
        tokenize_chinese_chars=config.get("tokenize_chinese_chars", True),
        roles={role: _text_of(config[role]) for role in _ROLES.get(name, {})},
    )
    _add_tokens(backend, config, _read_json(folder / "added_tokens.json"))
    return backend.to_str(), config


def write_parts(tokenizer_json: str, config: dict[str, Any]) -> str:
    """Both parts of a tokenizer in one JSON object: "tokenizer" (tokenizer.json) and "config"."""
    return json.dumps({"tokenizer": json.loads(tokenizer_json), "config": config}, ensure_ascii=False)


def read_parts(content: str) -> tuple[str, dict[str, Any] | None]:
    """What `write_parts` was given, or (content, None) of the bare text of a tokenizer.json."""
    first, _, last = content.rpartition(', "config": ')
    if first.startswith('{"tokenizer": '):  # as we write it: the backend alone reads the vocabulary
        with contextlib.suppress(ValueError):  # no JSON follows the name where it is one of the settings' own
            return first[len('{"tokenizer": ') :], json.loads(last[:-1])
    parts = json.loads(content)
    if "tokenizer" not in parts:
        return content, None
    return json.dumps(parts["tokenizer"], ensure_ascii=False), parts["config"]


def read_tokenizer_json(path: str | Path) -> str:
    """The text of a tokenizer.json, which the backend can read."""
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"No tokenizer file {str(path)!r}.")
    content = json_files.read_text(path)
    try:
        tokenizers.Tokenizer.from_str(content)
    except Exception as error:  # the Rust side raises bare Exception
        raise ValueError(f"{str(path)!r} is not a readable tokenizer.json: {error}") from error
    return content


def _text_of(token: str | dict) -> str:
    return token["content"] if isinstance(token, dict) else token


def special_tokens(backend: tokenizers.Tokenizer, config: dict[str, Any]) -> dict[str, str | None]:
    """The token of each role, None where the vocabulary has none."""
    chosen = {}
    for role, conventional in SPECIAL_TOKENS.items():
        if role in config:
            token = config[role]
            names = (token.get("content") if isinstance(token, dict) else token,)
            if not isinstance(names[0], (str, type(None))):
                raise ValueError(f"tokenizer_config.json says {role}={token!r}: wanted a token's text, or null.")
        else:
            names = conventional
        known = [name for name in names if name is not None and backend.token_to_id(name) is not None]
        chosen[role] = known[0] if known else None
    return chosen


def longest_text(config: dict[str, Any]) -> int | None:
    """The tokens of the longest text that the settings declare, or None; transformers writes int(1e30) for unknown."""
    declared = config.get("model_max_length")
    if declared is None:
        return None
    if not isinstance(declared, (int, float)) or isinstance(declared, bool) or declared != declared:
        raise ValueError(f"tokenizer_config.json says model_max_length={declared!r}: wanted a positive whole number.")
    return int(declared) if 0 < declared < 1e9 else None


def prefix_space_backend(content: str) -> tokenizers.Tokenizer | None:
    """Where byte-level BPE glues words to what stands before: a backend that gives each its leading space."""
    parts = json.loads(content)
    pre_tokenizer = parts.get("pre_tokenizer") or {}
    steps = pre_tokenizer.get("pretokenizers", [pre_tokenizer])
    glued = [step for step in steps if step.get("type") == "ByteLevel" and not step["add_prefix_space"]]
    if not glued:
        return None
    for step in glued:
        step["add_prefix_space"] = True
    if "add_prefix_space" in (parts.get("post_processor") or {}):
        parts["post_processor"]["add_prefix_space"] = True  # offsets are trimmed accordingly
    return tokenizers.Tokenizer.from_str(json.dumps(parts))


def lowercased(content: str) -> str:
    """A tokenizer.json that lowercases texts first, unless it does so already."""
    parts = json.loads(content)
    normalizer = parts.get("normalizer")
    steps = normalizer["normalizers"] if (normalizer or {}).get("type") == "Sequence" else [normalizer]
    steps = [step for step in steps if step is not None]
    if any(step["type"] == "Lowercase" or step.get("lowercase") for step in steps):
        return content
    parts["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "Lowercase"}, *steps]}
    return json.dumps(parts, ensure_ascii=False)


def saved_config(backend: tokenizers.Tokenizer, config: dict[str, Any]) -> dict[str, Any]:
    """The tokenizer_config.json that makes transformers open the saved backend as it is."""
    saved = dict(config)
    for role, token in special_tokens(backend, config).items():
        if token is not None:
            saved.setdefault(role, token)
    normalizer = backend.normalizer
    if isinstance(normalizer, normalizers.BertNormalizer):
        # transformers builds the normalizer of a BERT class from these keys, not from tokenizer.json.
        saved |= {key: getattr(normalizer, name) for key, (name, _) in _BERT_SETTINGS.items()}
        saved.setdefault("tokenizer_class", "BertTokenizer")
    saved.setdefault("tokenizer_class", "PreTrainedTokenizerFast")
    return saved


def _chat_templates(folder: Path) -> str | dict[str, str] | None:
    """The chat templates that are files of their own: one as its text, several by name."""
    others = {path.stem: json_files.read_text(path) for path in sorted((folder / CHAT_TEMPLATES).glob("*.jinja"))}
    default = json_files.read_text(folder / CHAT_TEMPLATE) if (folder / CHAT_TEMPLATE).is_file() else None
    if not others:
        return default
    return others if default is None else {"default": default, **others}


def write_chat_template(folder: Path, config: dict[str, Any]) -> None:
    """Moves chat templates out of the settings into files of their own, where transformers has them.

    Raises:
        ValueError: for a template whose name is no name of a file.
    """
    for name, template in chat.templates({"chat_template": config.pop("chat_template", None)}).items():
        if not re.fullmatch(r"[\w-][\w.-]*", name):
            raise ValueError(f"A chat template is called {name!r}, which is no name of a file.")
        path = CHAT_TEMPLATE if name == chat.DEFAULT else f"{CHAT_TEMPLATES}/{name}.jinja"
        write_text(folder / path, template)


def _read_json(path: Path) -> dict[str, Any]:
    return json_files.read_json(path) if path.is_file() else {}


def _class_name(folder: Path, config: dict[str, Any]) -> str | None:
    """The tokenizer class of a folder, without the "Fast" that older versions put behind it."""
    model = _read_json(folder / "config.json")
    stated = config.get("tokenizer_class") or model.get("tokenizer_class") or _CLASSES.get(model.get("model_type"))
    name = stated.removesuffix("Fast") if isinstance(stated, str) else None
    # M2M-100 and NLLB are one model_type; what has no ids of its own is NLLB's.
    return "NllbTokenizer" if name == "M2M100Tokenizer" and not (folder / "vocab.json").is_file() else name


def as_its_class_reads(content: str, config: dict[str, Any], name: str | None) -> str:
    """A tokenizer.json as transformers 5.24 reads it with the class of a name: where both speak, the settings win."""
    if name not in (*_BERT_CLASSES, *_BYTE_LEVEL_CLASSES, _LLAMA):
        return content
    parts = json.loads(content)
    before = json.dumps(parts, sort_keys=True)
    if name in _BERT_CLASSES:
        _apply_bert_settings(parts, config)
    elif name == _LLAMA:
        _apply_llama_settings(parts, config)
    elif _part(parts, "pre_tokenizer").get("type") == "ByteLevel":  # one that splits digits first stays as it is
        prefix = bool(config.get("add_prefix_space", False))
        parts["pre_tokenizer"]["add_prefix_space"] = prefix
        if _part(parts, "post_processor").get("type") == "RobertaProcessing":
            parts["post_processor"]["add_prefix_space"] = prefix
    # The file's own words stay where nothing changes: read and written again, floats differ in their last bit.
    return content if json.dumps(parts, sort_keys=True) == before else json.dumps(parts, ensure_ascii=False)


def _part(parts: dict, name: str) -> dict:
    """A step of a tokenizer.json; of one that is null, or no object, nothing."""
    part = parts.get(name)
    return part if isinstance(part, dict) else {}


def _apply_bert_settings(parts: dict, config: dict[str, Any]) -> None:
    normalizer, decoder = _part(parts, "normalizer"), _part(parts, "decoder")
    for key in _BERT_SETTINGS:
        if not isinstance(config.get(key), (bool, type(None))):
            raise ValueError(f"tokenizer_config.json says {key}={config[key]!r}: wanted true, false or null.")
    if normalizer.get("type") == "BertNormalizer":
        for key, (name, default) in _BERT_SETTINGS.items():
            normalizer[name] = default if config.get(key) is None else config[key]
    if decoder.get("type") == "WordPiece":
        decoder["cleanup"] = True


def _apply_llama_settings(parts: dict, config: dict[str, Any]) -> None:
    """SentencePiece's space stands in front of a text as the settings say, and not behind each special token.

    Files of Llama 2 and its kin have a normalizer for it that does both, and adds one where there is one already.
    """
    if '"ByteLevel"' in json.dumps([parts.get("pre_tokenizer"), parts.get("decoder")]):
        return
    prefix = config.get("add_prefix_space") is not False
    scheme = ("always" if config.get("legacy") else "first") if prefix else "never"
    space = {"content": " ", "start": 1, "stop": 0}
    spaces = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
    decoder = [spaces, {"type": "ByteFallback"}, {"type": "Fuse"}, *([{"type": "Strip", **space}] if prefix else [])]
    parts |= {
        "normalizer": None,
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": False},
        "decoder": {"type": "Sequence", "decoders": decoder},
        "model": {**_part(parts, "model"), "unk_token": None, "fuse_unk": True, "byte_fallback": True},
    }


def cleaned(text: str, config: dict[str, Any], kind: str) -> str:
    """A decoded text without the spaces in front of punctuation, where the settings ask for that.

    Of BPE tokenizers the setting is passed over, as transformers 5 does: their spaces are the text's own.
    """
    if config.get("clean_up_tokenization_spaces") and kind != "BPE":
        for spaced in _CLEANED:
            text = text.replace(spaced, spaced.strip())
    return text


def _with_declared_tokens(content: str, config: dict[str, Any]) -> str:
    """A tokenizer.json with the tokens that only its settings declare, as transformers adds them.

    A special token for which neither file has an id stays unknown: the model has no row for it.
    """
    parts = json.loads(content)
    parts["added_tokens"] = added = parts.get("added_tokens") or []
    before = json.dumps(added)
    known = {token["content"] for token in added}
    declared = _declared(config)
    extra = [config.get("extra_special_tokens") or (), config.get("additional_special_tokens") or ()]
    named = [config.get(role) for role in SPECIAL_TOKENS]
    named += [token for some in extra for token in (some.values() if isinstance(some, dict) else some)]
    named = [token.get("content") if isinstance(token, dict) else token for token in named]
    named += [token["content"] for token in declared.values() if token.get("special")]
    missing = {index: token for index, token in declared.items() if token["content"] not in known}
    if missing or any(isinstance(token, str) and token not in known for token in named):
        backend = tokenizers.Tokenizer.from_str(content)
        _add_tokens(backend, {"added_tokens_decoder": missing}, {})
        there = [token for token in named if isinstance(token, str) and backend.token_to_id(token) is not None]
        backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in there])
        parts["added_tokens"] = added = json.loads(backend.to_str())["added_tokens"]
    for token in added:
        token["special"] = token["special"] or token["content"] in named
    return content if json.dumps(added) == before else json.dumps(parts, ensure_ascii=False)


def _declared(config: dict[str, Any]) -> dict[int, dict]:
    """The tokens that tokenizer_config.json declares, by id."""
    try:
        declared = {int(index): dict(token) for index, token in (config.get("added_tokens_decoder") or {}).items()}
        if not all(isinstance(token["content"], str) for token in declared.values()):
            raise ValueError("a content is no text")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            "tokenizer_config.json: added_tokens_decoder must have a token with its content for each id, as in "
            f'{{"5": {{"content": "<x>"}}}} ({type(error).__name__}: {error}).'
        ) from error
    return declared


def _add_tokens(backend: tokenizers.Tokenizer, config: dict[str, Any], added: dict[str, int]) -> None:
    """Adds the tokens that files beside vocab.txt declare, at the ids they declare."""
    declared = _declared(config)
    declared |= {index: {"content": token} for token, index in added.items() if index not in declared}
    flags = ("single_word", "lstrip", "rstrip", "normalized", "special")
    for index, token in sorted(declared.items()):
        options = {flag: token[flag] for flag in flags if flag in token}
        added_token = AddedToken(token["content"], **options)
        add = backend.add_special_tokens if options.get("special") else backend.add_tokens
        add([added_token])
        if backend.token_to_id(token["content"]) != index:
            raise ValueError(
                f"Added token {token['content']!r} is declared with id {index}, but the vocabulary puts it "
                f"at {backend.token_to_id(token['content'])}: the tokenizer and its added tokens do not fit."
            )
