"""Small SentencePiece models, trained when a test wants them, and texts that are hard to cut."""

import json

CORPUS = [
    *("The cat sat on the mat and looked at the dog.", "A tokenizer cuts a text into pieces of words."),
    *("Translate English to French: the house is small.", "Summaries are short; papers are long (and dry)."),
    *("Numbers like 12, 345 and 2026 are written in digits.", 'He said: "No, I don\'t know!" - and left.'),
    *("Le chat est assis sur le tapis.", "La maison est petite, élégante et à côté.", "Où est-ce que tu habites?"),
    *("Der Hund läuft über die Straße.", "Größere Häuser kosten mehr.", "El niño come una manzana."),
    *("Pisica stă pe covor.", "Şeful ONU declară că nu există o soluţie.", "Tiếng Việt có nhiều dấu: ế, ộ, ữ."),
    *(
        "Кошка сидит на ковре.",
        "Привет, как дела?",
        "Η γάτα κάθεται.",
        "猫はマットの上に座った。",
        "你好，世界。我们走吧。",
    ),
    *("مرحبا بالعالم، كيف حالك؟", "한국어는 어렵다.", "नमस्ते दुनिया।", "def maximum(a, b): return max([a, b])"),
]
NASTY = [
    *("", " ", "   ", "a", " a", "a ", "  a  b  ", "\ta\nb\r\nc", "a\u00a0b\u3000c\u2003d", "a\u200bb\u200dc\ufeff"),
    *(
        "e\u0301",
        "e\u0302\u0301",
        "E\u0301 B\u0301",
        "\ufb01\u0301",
        "Tie\u0302\u0301ng Vie\u0323\u0302t",
        "a\u0301\u0323",
    ),
    *(
        "\u1112\u1161\u11ab\u1100\u116e\u11a8",
        "ｆｕｌｌ　ｗｉｄｔｈ",
        "ﬁne ﬂow Ⅳ ① ½ ™ ﷺ",
        "ﾊﾞﾅﾅ",
        "Å\u0301",
        "ΟΔΟΣ ß İ",
    ),
    *(
        "👩‍👧‍👦 🏳️‍🌈 👍🏽 🇫🇷",
        "猫はマットの上に座った",
        "مرحبا بالعالم",
        "नमस्ते",
        "a\x00b\x01\x7f",
        "\x00",
        "\ufffd\uffff",
    ),
    *("▁", "▁▁", "a▁b", "▁a ▁ b▁", "a ▁", "supercalifragilistic" * 20, "猫" * 90, "a" * 200, "ababab" * 30),
    *("<0x41><0x0A>", "< s>", "def f(x): return x", "1234567890", "...!!!???", "http://example.com/a?b=c#d"),
    *("The cat sat on the mat.", "Où est-ce que tu habites?", "Привет, как дела?", "\u2028\u2029 x", "𝒜𝓑 \U0010fffd"),
]
MARKED = ["a</s>b", "</s>", "<unk> a <pad>", "a  <unk>  b", "＜/s＞ a", "x＜unk＞"]  # with the names of special tokens
_BERT = {"pad_piece": "[PAD]", "bos_piece": "[CLS]", "eos_piece": "[SEP]", "unk_piece": "[UNK]"}
DEBERTA = {**_BERT, "pad_id": 0, "bos_id": 1, "eos_id": 2, "unk_id": 3}
T5 = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}


def train(path, vocab_size=420, texts=CORPUS, **options):
    """Trains a model file; returns its `SentencePieceProcessor`."""
    import sentencepiece

    with path.open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts * 3),
            model_writer=file,
            vocab_size=vocab_size,
            hard_vocab_limit=False,
            minloglevel=2,
            num_threads=1,
            **options,
        )
    return sentencepiece.SentencePieceProcessor(model_file=str(path))


def settings(folder, tokenizer_class, **more):
    """Writes the tokenizer_config.json of a folder."""
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": tokenizer_class, **more}))
    return folder


def folder(path, tokenizer_class, **more):
    """A folder with the tokenizer files of a family, as its checkpoints have them; models of one or two languages."""
    path.mkdir(parents=True, exist_ok=True)
    if tokenizer_class in ("T5Tokenizer", "PegasusTokenizer"):
        train(path / "spiece.model", **T5)
    elif tokenizer_class == "DebertaV2Tokenizer":
        train(path / "spm.model", **DEBERTA)
    elif tokenizer_class == "MarianTokenizer":
        models = [train(path / "source.spm", texts=CORPUS[:12]), train(path / "target.spm", texts=CORPUS[9:])]
        pieces = [model.id_to_piece(index) for model in models for index in range(3, len(model))]
        languages = more.pop("languages", [">>fra<<", ">>deu<<"])
        if more.get("separate_vocabs"):
            first = ["</s>", "<unk>", "<pad>"]  # under the same ids: the model's config has one padding_id
            for model, name, codes in zip(models, ("vocab.json", "target_vocab.json"), (languages, []), strict=True):
                pieces = [model.id_to_piece(index) for index in range(3, len(model))]
                vocabulary(path, [*first, *mixed(pieces), *codes], name)
        else:
            vocabulary(path, ["</s>", "<unk>", *mixed(pieces), *languages, "<pad>"])
    elif tokenizer_class == "M2M100Tokenizer":
        model = train(path / "sentencepiece.bpe.model", model_type="bpe")
        pieces = mixed([model.id_to_piece(index) for index in range(3, len(model))])
        vocabulary(path, ["<s>", "<pad>", "</s>", "<unk>", *pieces])
    elif tokenizer_class != "ByT5Tokenizer":
        kind = "bpe" if tokenizer_class in ("NllbTokenizer", "PLBartTokenizer") else "unigram"
        train(path / "sentencepiece.bpe.model", model_type=kind)
    return settings(path, tokenizer_class, **more)


def mixed(pieces):
    """Pieces in another order, each once, and some of them gone, as vocabularies are made of what a corpus had."""
    pieces = list(dict.fromkeys(pieces))
    return [*pieces[::2], *pieces[1::2]][:-20]


def vocabulary(path, tokens, name="vocab.json"):
    (path / name).write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
