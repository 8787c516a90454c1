"""Writes fixtures/: tiny tokenizers of each family and the ids transformers gives to hard texts.

Run by hand, where transformers is installed: python tests/text/make_fixtures.py
"""

import json
import shutil
from pathlib import Path

import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from tfxformer import samples

FIXTURES = Path(__file__).parent / "fixtures"
SPECIAL = {
    "bert": ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
    "roberta": ["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
    "albert": ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"],
}
PROSE = """
The quick brown fox jumps over the lazy dog, and then it rests beside the river until the evening comes.
Transformers read a sequence of tokens; attention lets every token look at every other token in the text.
A small model that answers quickly is worth more on a phone than a large model that never arrives there.
Prices rose by 3.5% in 2024, to $1,234.56, said the bank's chief economist; analysts had expected 2.9%.
Unbelievable! Who'd have thought (really?) that re-reading the un-happily-ever-after would be so pleasant.
def tokenize(text): return [piece for word in text.split() for piece in pieces(word)]
Die Straße nach Köln führt über den Fluß; el niño comió piñatas; l'été à Paris; Привет мир, как дела?
""".strip().splitlines()
HARD = [
    "", " ", "   \t \n ", "a", "Hello, World!", "HELLO wOrLd", "hello"*3, "I'll can't won't she'd've",
    "hello  world   double  spaces", " leading", "trailing ", "tab\tand\nnewline\r\nand\rreturn",
    "…—–‘’“”«»", "中文字符", "日本語のテキスト、カタカナ", "한국어 텍스트", "mixed中文and English混合",
    "𠀀𠀁 rare 𪚥 han", "　full　width　space", "ＦＵＬＬ　ｗｉｄｔｈ", "ﬁnancial ﬂow", "™ ² Ⅷ ½ № ①",
    "ß ẞ Straße STRASSE", "İstanbul ıI ŞĞ", "ΟΔΟΣ ὀδός Σίσυφος", "café", "cafe\u0301", "naïve Zoë ÀÉÎÕÜ",
    "nai\u0308ve Zoe\u0308", "Å Å A\u030a", "q\u0307\u0323 q\u0323\u0307",
    "e\u0301\u0302\u0303\u0304 stacked", "हिन्दी पाठ", "ภาษาไทย ไม่มี ช่องว่าง", "العربية نَصّ",
    "עִבְרִית", "ქართული", "Việt Nam Tiếng Việt", "Привет, мир! Ёлка", "😀", "😀😃 hi 😄",
    "👨‍👩‍👧‍👦 family", "👍🏽 🏳️‍🌈 🇫🇷🇩🇪", "❤️ ❤", "a👍b", "zero\u200bwidth\u200cjoin\u200der\ufeffbom",
    "soft\u00adhyphen", "non\u00a0breaking\u202fspace", "rtl \u202eoverride\u202c end",
    "nul\x00in\x00side", "bell\x07esc\x1b[0mdel\x7f", "c1\x85next\x9fline", "line\u2028sep\u2029para",
    "\ufffd replacement \ufffe", "private \ue000 use", "unassigned \u0378", "a"*99, "a"*100, "a"*101,
    "ab"*100, "antidisestablishmentarianism", "x"*500 + " tail", "http://example.com/a/b?c=d&e=f#g",
    "https://user:pw@sub.example.co.uk:8080/~x/%20y", "www.example.org, ok?", "user.name+tag@example.com",
    "@handle #hashtag $TICKER", "C:\\path\\to\\file.txt", "/usr/local/bin/../lib",
    "3.14159 1,000,000 1e-9 0xDEADBEEF", "$1,234.56 €99 £5 ¥100 ₿", "50% off!!! (really???)",
    "+1 (555) 123-4567", "2024-01-02T03:04:05Z", "v1.2.3-rc.4+build.5",
    "x_y_z camelCase PascalCase SCREAMING_SNAKE kebab-case", "def f(x): return x**2 # comment",
    "for(int i=0;i<n;++i){a[i]|=1<<i;}", '<a href="x">y &amp; z</a>', '{"key": [1, 2.0, null, true]}',
    "`code` ```block``` ''two'' \"q\"", "\\begin{equation} e^{i\\pi} \\end{equation}",
    "[CLS] [SEP] [MASK] [PAD] [UNK]", "the [MASK] sat", "[mask] [ MASK ] [MASK", "[CLS][SEP]", "a[MASK]b",
    "<s> </s> <pad> <mask> <unk>", "the <mask> sat", "the<mask>sat", " <mask> ", "##ing ##s",
    "▁under ▁score", "Ġspace Ċ", "....", "-----", "!?!?!?", "a.b.c.d", "(((nested)))", "____", "~`^|",
    "''", "“quoted” ‘single’", "rock’n’roll", "un-happi-ness re-re-read", "e.g. i.e. etc. U.S.A. Ph.D.",
    "1st 2nd 3rd 4th", "x²+y²=z²", "H₂O CO₂", "∑∫√∞≈≠", "ⓐⓑⓒ 🅰🅱", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝕋𝕖𝕩𝕥", "Z̷a̵l̶g̴o̸", "ﷺ",
    "ǅ ǆ Ǆ", "ŉ ǰ ΐ", "K Ω Å signs", "ſtrange ſ", "Ⅳ ⅳ", *PROSE,
]  # fmt: skip
PAIRS = [
    ["who jumps?", "the quick brown fox"],
    ["", "empty first"],
    ["empty second", ""],
    ["", ""],
    ["[SEP] inside", "<s> too"],
    ["long " * 30, "short"],
    ["short", "longer text " * 20],
]


def train(model, trainer, normalizer, pre_tokenizer) -> dict:
    backend = Tokenizer(model)
    backend.normalizer = normalizer
    backend.pre_tokenizer = pre_tokenizer
    backend.train_from_iterator([*PROSE, *HARD[:60]], trainer)
    return json.loads(backend.to_str())["model"]


def wordpiece(lowercase: bool) -> list[str]:
    normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    trainer = trainers.WordPieceTrainer(vocab_size=700, special_tokens=SPECIAL["bert"], show_progress=False)
    model = train(models.WordPiece(unk_token="[UNK]"), trainer, normalizer, pre_tokenizers.BertPreTokenizer())
    return sorted(model["vocab"], key=model["vocab"].get)


def unigram(special: list[str], normalizer) -> list[tuple]:
    metaspace = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    trainer = trainers.UnigramTrainer(vocab_size=500, special_tokens=special, unk_token="<unk>", show_progress=False)
    return [tuple(row) for row in train(models.Unigram(), trainer, normalizer, metaspace)["vocab"]]


def byte_pairs() -> dict:
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=SPECIAL["roberta"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    return train(models.BPE(), trainer, None, pre_tokenizers.ByteLevel(add_prefix_space=False))


def save_families() -> None:
    for lowercase in (True, False):
        folder = FIXTURES / ("bert-uncased" if lowercase else "bert-cased")
        vocabulary = {token: index for index, token in enumerate(wordpiece(lowercase))}
        transformers.BertTokenizer(vocabulary, do_lower_case=lowercase, model_max_length=64).save_pretrained(folder)
        (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in vocabulary), encoding="utf-8")
    model = byte_pairs()
    merges = [tuple(merge) for merge in model["merges"]]
    roberta = transformers.RobertaTokenizer(model["vocab"], merges, model_max_length=64)
    roberta.save_pretrained(FIXTURES / "roberta")
    xlm = transformers.XLMRobertaTokenizer(unigram(SPECIAL["roberta"], None), model_max_length=64)
    xlm.save_pretrained(FIXTURES / "xlm-roberta")
    folding = normalizers.Sequence([normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase()])
    albert = transformers.AlbertTokenizer(unigram(SPECIAL["albert"], folding), model_max_length=64)
    albert.save_pretrained(FIXTURES / "albert")


def expected(folder: Path) -> dict:
    """Ids by transformers, untruncated, as lists."""
    reference = transformers.AutoTokenizer.from_pretrained(folder)
    pairs = reference([a for a, _ in PAIRS], [b for _, b in PAIRS], return_token_type_ids=True)
    return {
        "texts": reference(HARD, truncation=False, verbose=False)["input_ids"],
        "pairs": pairs["input_ids"],
        "pair_segments": pairs["token_type_ids"],
        "decoded": reference.batch_decode(reference(HARD)["input_ids"], skip_special_tokens=True),
    }


def main() -> None:
    shutil.rmtree(FIXTURES, ignore_errors=True)
    FIXTURES.mkdir()
    save_families()
    result = {"transformers": transformers.__version__, "texts": HARD, "pairs": PAIRS, "families": {}}
    for folder in sorted(path for path in FIXTURES.iterdir() if path.is_dir()):
        result["families"][folder.name] = expected(folder)
    result["families"]["minilm-l6"] = expected(samples.minilm())
    (FIXTURES / "expected.json").write_text(json.dumps(result) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
