"""The tokenizer of bert-base-chinese against transformers', on Chinese and what stands among it."""

import pytest

from tfxformer import samples
from tfxformer.text import Tokenizer

NASTY = [
    "",
    "中华人民共和国",
    "我爱Python3和TensorFlow，你呢？",
    "１９９８年１月３日，ＧＤＰ增长８．８％",  # full width
    "价格￥99.90元（约合US$12.5）",
    "「繁體字」『台灣』〈書〉《名》【注】〔〕…——·～",
    "龘䶮㐀鿿𠀀𪚥𫝀",  # the rarest, and those beyond the first plane
    "豈更車賈滑",  # compatibility ideographs, which NFD would change
    "⽊⺼㊣㈱①Ⅷ㎡℃",
    "〇々〆ヶ〻",
    "ㄅㄆㄇ ひらがな カタカナ ﾊﾝｶｸ 한국어 조선글",
    "가각",  # Hangul in letters
    "中　文\u00a0空\u2003格\u3000\u200b零\ufeff宽",
    "中\u0000文\ufffd控\u0007制\u200d符\u202e",
    "漢字\U000e0100 葛󠄁",  # with selectors of variants
    "女👩‍👩‍👧‍👦儿🇨🇳国旗❤️",
    "café Ünïcödé naïve ǖǘǚǜ ḿ",
    "e\u0301cole 中\u0301文\u20dd",
    "[CLS]中[MASK]国[SEP] [UNK] [PAD] [unused1]",
    "[mask] [ MASK ] ##中 ##国 中##国",
    "http://www.example.cn/路径?q=中文&x=1#锚",
    "张三@163.com，电话010-88886666转8",
    "abc中def国ghi" * 3,
    "a" * 101 + "中" + "b" * 100,
    "１" * 120,
    "\n\t\r中\n国\t",
]
PAIRS = [("中国的首都是哪里？", "北京。"), ("", "空"), ("问", "")]


@pytest.mark.samples
@pytest.mark.reference
@pytest.mark.parametrize("lowercase", [False, True])
def test_ids_and_texts_are_those_of_transformers(lowercase, tmp_path):
    import transformers

    folder = samples.bert_chinese_vocabulary()
    reference = transformers.BertTokenizerFast.from_pretrained(folder, do_lower_case=lowercase)
    ours = Tokenizer.from_vocabulary(folder / "vocab.txt") if lowercase else Tokenizer.from_pretrained(folder)
    assert ours.vocabulary_size == len(reference) == 21_128
    wanted = [reference(text)["input_ids"] for text in NASTY]
    assert ours.ids(NASTY) == wanted
    assert ours.decode(wanted, skip_special_tokens=False) == [reference.decode(ids) for ids in wanted]
    batch = ours.encode(*map(list, zip(*PAIRS, strict=True)), sequence_length=24)
    theirs = reference(*map(list, zip(*PAIRS, strict=True)), padding="max_length", max_length=24)
    assert batch.token_ids.tolist() == theirs["input_ids"]
    assert batch.segment_ids.tolist() == theirs["token_type_ids"]
    ours.save_pretrained(tmp_path)
    again = transformers.BertTokenizerFast.from_pretrained(tmp_path)
    assert [again(text)["input_ids"] for text in NASTY] == wanted


@pytest.mark.samples
@pytest.mark.reference
def test_characters_as_words_have_a_piece_each():
    """As a tagger reads them: lists of characters. Of each word it says which pieces are its own."""
    import transformers

    folder = samples.bert_chinese_vocabulary()
    reference = transformers.BertTokenizerFast.from_pretrained(folder)
    words = [list(text) for text in NASTY if text]
    ours = Tokenizer.from_pretrained(folder).encode(words, is_split_into_words=True, return_offsets=True)
    theirs = reference(words, is_split_into_words=True, padding=True)
    assert ours.token_ids.tolist() == theirs["input_ids"]
    for index, row in enumerate(ours.word_ids):
        assert [None if word < 0 else word for word in row.tolist()] == theirs.word_ids(index)
