"""Files in the forms that people have them: what tasks get of each, beside what other readers make of them."""

import json

import pytest

from tfxformer import data
from tfxformer.data.files.sources import read_table

TAGGING, ANSWERING = "token-classification", "question-answering"
SENTENCES = [(["Ada", "met", "Alan"], ["B-PER", "O", "B-PER"]), (["#", "1"], ["O", "O"])]
CONLL = "-DOCSTART- -X- O\n\n# id 8fc\nAda NNP B-PER\nmet VBD O\nAlan NNP B-PER\n\n# NN O\n1 CD O\n"
UNIVERSAL = """# sent_id = 1
# text = vámonos al mar
1-2\tvámonos\t_\t_\t_\t_\t_\t_\t_\t_
1\tvamos\tir\tVERB\tVM\t_\t0\troot\t_\t_
2\tnos\tnosotros\tPRON\tPP\t_\t1\tobj\t_\t_
2.1\tya\tya\tADV\t_\t_\t_\t_\t_\t_
3\tmar\tmar\tNOUN\tNC\t_\t1\tobl\t_\t_

"""
SQUAD = {
    "version": "v2.0",
    "data": [
        {
            "title": "Ada",
            "paragraphs": [
                {
                    "context": "Ada wrote it in London.",
                    "qas": [
                        {"id": "1", "question": "Who?", "answers": [{"text": "Ada", "answer_start": 0}]},
                        {"id": "2", "question": "When?", "answers": [], "is_impossible": True},
                    ],
                }
            ],
        }
    ],
}


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.conll", CONLL),
        ("a.bio", CONLL.replace(" ", "\t").replace("\n", "\r\n")),
        ("a.jsonl", "\n".join(json.dumps({"id": 1, "tokens": words, "ner_tags": tags}) for words, tags in SENTENCES)),
        ("a.json", [{"words": words, "labels": tags} for words, tags in SENTENCES]),
        ("a.csv", "text,label\nAda met Alan,B-PER O B-PER\n# 1,O O\n"),
    ],
)
def test_words_with_tags(tmp_path, name, content):
    words, tags = data.load(write(tmp_path / name, content), TAGGING)
    assert list(zip(words, tags, strict=True)) == SENTENCES


def test_any_column_of_tags_can_be_meant(tmp_path):
    path = write(tmp_path / "a.conll", CONLL)
    assert data.load(path, TAGGING, label_column="2")[1] == [["NNP", "VBD", "NNP"], ["NN", "CD"]]
    path = write(tmp_path / "a.conllu", UNIVERSAL)
    assert data.load(path, TAGGING) == ([["vamos", "nos", "mar"]], [["VERB", "PRON", "NOUN"]])
    assert data.load(path, TAGGING, label_column="xpos")[1] == [["VM", "PP", "NC"]]


@pytest.mark.parametrize("span", [[8, 12, "PER"], {"start": 8, "end": 12, "label": "PER"}])
def test_spans_become_tags(tmp_path, span):
    records = [{"text": "Ada met Alan, twice.", "label": [span]}, {"text": "Nobody.", "label": []}]
    path = write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, records)))
    words, tags = data.load(path, TAGGING)
    assert words == [["Ada", "met", "Alan", ",", "twice", "."], ["Nobody", "."]]
    assert tags == [["O", "O", "B-PER", "O", "O", "O"], ["O", "O"]]


def test_spans_that_fit_no_words(tmp_path):
    def loaded(*spans):
        return data.load(write(tmp_path / "a.json", [{"text": "New York, Ohio", "spans": list(spans)}]), TAGGING)

    with pytest.warns(UserWarning, match="1 spans begin or end inside of a word"):
        assert loaded([0, 6, "LOC"])[1] == [["B-LOC", "I-LOC", "O", "O"]]
    with pytest.raises(ValueError, match="object 1, column 'spans': the span 8 to 99 holds no word"):
        loaded([8, 99, "LOC"])
    with pytest.raises(ValueError, match="shares a word"):
        loaded([0, 8, "LOC"], [4, 8, "LOC"])
    with pytest.raises(ValueError, match="wanted spans"):
        loaded([0, "LOC"])


def test_squad(tmp_path):
    questions, answers = data.load(write(tmp_path / "a.json", SQUAD), ANSWERING)
    assert questions == [("Who?", "Ada wrote it in London."), ("When?", "Ada wrote it in London.")]
    assert answers == [{"text": ["Ada"], "answer_start": [0]}, {"text": [], "answer_start": []}]
    del SQUAD["data"][0]["paragraphs"][0]["qas"][0]["answers"][0]["answer_start"]
    with pytest.raises(ValueError, match="question '1': it is not as SQuAD has it"):
        data.load(write(tmp_path / "b.json", SQUAD), ANSWERING)


def test_folders_of_texts(tmp_path):
    for name, text in (("pos/1.txt", "good"), ("neg/1.txt", "bad\nfilm\n"), ("pos/2.txt", "fine")):
        write(tmp_path / "train" / name, text)
    assert data.load(tmp_path / "train", "text-classification") == (
        ["bad\nfilm", "good", "fine"],
        ["neg", "pos", "pos"],
    )
    assert data.load(tmp_path / "train/pos", "causal-lm") == (["good", "fine"], None)
    write(tmp_path / "test/pos/1.txt", "good")
    with pytest.raises(ValueError, match="test, train, which are splits"):
        data.load(tmp_path, "text-classification")
    write(tmp_path / "train/3.txt", "good")
    with pytest.raises(ValueError, match="texts, and folders of texts"):
        data.load(tmp_path / "train", "text-classification")
    with pytest.raises(ValueError, match=r"no \.txt file"):
        data.load((tmp_path / "empty").mkdir() or tmp_path / "empty", "text-classification")


def test_pairs_by_their_usual_names(tmp_path):
    path = write(tmp_path / "a.csv", "id,sentence1,sentence2,score\n1,a,b,0.5\n")
    assert data.load(path, "text-embedding") == ([("a", "b")], [0.5])
    path = write(tmp_path / "b.csv", "premise,hypothesis,label\na,b,entailment\n")
    assert data.load(path, "text-classification") == ([("a", "b")], ["entailment"])
    path = write(tmp_path / "c.csv", "review,stars\ngood,5\n")
    chosen = {"text_column": "review", "label_column": "stars"}
    assert data.load(path, "text-classification", **chosen) == (["good"], ["5"])
    with pytest.raises(ValueError, match="--text-column"):
        data.load(path, "text-classification")
    with pytest.raises(ValueError, match="no column 'rating'; there is 'review', 'stars'"):
        data.load(path, "text-classification", text_column="review", label_column="rating")
    path = write(tmp_path / "d.csv", "sentence,content,label\na,b,c\n")
    with pytest.raises(ValueError, match="both 'sentence' and 'content' could be the text"):
        data.load(path, "text-classification")


def test_what_language_models_learn_from(tmp_path):
    chat = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    shared = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]
    for name, rows in (("messages", chat), ("conversations", shared)):
        assert data.load(write(tmp_path / "a.json", [{name: rows}]), "causal-lm") == ([chat], None)
    alpaca = [{"instruction": "Add", "input": "1 2", "output": "3"}, {"instruction": "Hi", "input": "", "output": "yo"}]
    assert data.load(write(tmp_path / "b.json", alpaca), "causal-lm") == (["Add\n\n1 2", "Hi"], ["3", "yo"])
    path = write(tmp_path / "c.csv", "prompt,completion\na,b\n")
    assert data.load(path, "causal-lm") == (["a"], ["b"])
    with pytest.raises(ValueError, match="object 1, column 'messages': wanted a list of messages"):
        data.load(write(tmp_path / "d.json", [{"messages": "hi"}]), "causal-lm")


def test_parquet_has_its_names_from_the_schema(tmp_path):
    import pyarrow
    from pyarrow import parquet

    features = {"tokens": {"feature": {}}, "ner_tags": {"feature": {"names": ["O", "B-PER"], "_type": "ClassLabel"}}}
    table = pyarrow.table({"tokens": [["Ada", "sat"]], "ner_tags": [[1, 0]]})
    stated = json.dumps({"info": {"features": features}}).encode()
    parquet.write_table(table.replace_schema_metadata({"huggingface": stated}), tmp_path / "a.parquet")
    assert data.load(tmp_path / "a.parquet", TAGGING) == ([["Ada", "sat"]], [["B-PER", "O"]])
    parquet.write_table(table, tmp_path / "plain.parquet")
    assert data.load(tmp_path / "plain.parquet", TAGGING)[1] == [["1", "0"]]
    with pytest.raises(ValueError, match="no Parquet file"):
        data.load(write(tmp_path / "b.parquet", "text"), TAGGING)


@pytest.mark.reference
def test_datasets_of_hugging_face(tmp_path):
    datasets = pytest.importorskip("datasets")
    columns = {"tokens": [["Ada", "sat"]], "pos_tags": [[0, 1]], "ner_tags": [[1, 0]]}
    tags = datasets.Sequence(datasets.ClassLabel(names=["O", "B-PER"]))
    text = datasets.Sequence(datasets.Value("string"))
    made = datasets.Dataset.from_dict(
        columns, features=datasets.Features({"tokens": text, "pos_tags": tags, "ner_tags": tags})
    )
    made.to_parquet(str(tmp_path / "a.parquet"))
    for source in (made, tmp_path / "a.parquet"):
        assert data.load(source, TAGGING) == ([["Ada", "sat"]], [["B-PER", "O"]])
    with pytest.raises(ValueError, match="splits train"):
        data.load(datasets.DatasetDict(train=made), TAGGING)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.conll", "Ada B-PER\nmet\n", "line 2: 1 columns; wanted 2"),
        ("a.conll", "Ada\n", "line 1: 1 columns; wanted 2"),
        ("a.json", "{", "is not JSON"),
        ("a.json", {"a": 1}, "wanted a list of objects"),
        ("a.json", [], "has no rows"),
        ("a.txt", "\n \n", "has no rows"),
        ("a.docx", "", "ends in .csv"),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path, name, content, said):
    with pytest.raises(ValueError, match=said):
        read_table(write(tmp_path / name, content))
