import pytest

import tfxformer
from tfxformer import checkpoints
from tfxformer.models import HeadConfig, StackConfig, TransformerConfig
from tfxformer.text import Tokenizer

WORDS = ["good", "bad", "film", "a", "the", "was", "it", "dull", "fine", "we", "saw", "is"]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A BERT checkpoint folder of 2 layers, 32 wide, with a vocabulary of a few words."""
    folder = tmp_path_factory.mktemp("tiny")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    config = TransformerConfig(
        family="bert",
        vocabulary_size=len(vocabulary),
        # 4 heads: with 2, libtpu takes hours over a batch that is far too large.
        encoder=StackConfig(2, 32, 4, 64, max_positions=32),
        heads=HeadConfig(pooler=True),
        token_types=2,
    )
    checkpoints.save_pretrained(folder, tfxformer.build(config), config)
    Tokenizer.from_vocabulary(folder / "vocab.txt").save_pretrained(folder)
    return folder
