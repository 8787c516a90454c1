"""A student of the teacher's own texts writes more as the teacher does."""

import numpy as np
import pytest
import tiny

from tfxformer import compression, generation, tasks
from tfxformer.text import Tokenizer

pytestmark = pytest.mark.usefixtures("plain_kernels")
SOURCES = tiny.TEXTS[:6]


def make(seed):
    tokenizer = Tokenizer.train_byte_level_bpe(tiny.TEXTS, 280)
    stacks = {f"{stack}__num_layers": 1 for stack in ("encoder", "decoder")}
    backbone = tiny.backbone("marian", vocabulary_size=tokenizer.vocabulary_size, **stacks)
    return tiny.perturb(tasks.Seq2SeqLM(backbone, tokenizer=tokenizer), seed)


def test_targets_are_what_the_teacher_writes(capsys):
    teacher = make(0)
    assert compression.teacher_targets(teacher, SOURCES, None, max_new_tokens=4) == teacher.generate(SOURCES, 4)
    assert "6/6" in capsys.readouterr().out


@pytest.mark.slow
def test_a_student_comes_nearer_to_its_teacher():
    teacher, student = make(0), make(1)
    teacher.compile(learning_rate=3e-2)
    teacher.fit(SOURCES, [" ".join(reversed(text.split())) for text in SOURCES], epochs=15, verbose=0)
    targets = compression.teacher_targets(teacher, SOURCES, generation.Beams(2), max_new_tokens=4, verbose=0)

    def agreement():
        same = np.mean([a == b for a, b in zip(student.generate(SOURCES, 4), targets, strict=True)])
        return same, student.score(SOURCES, targets).mean()

    before = agreement()
    student.compile(learning_rate=3e-2)
    student.fit(SOURCES, targets, epochs=20, verbose=0)
    after = agreement()
    assert before[0] == 0 and after[0] >= 0.5
    assert after[1] > before[1] + 1


def test_beams_are_asked_for():
    class Teacher:
        def read_prompts(self): ...

        def generate(self, *arguments, **options):
            return arguments, options

    beams = generation.Beams(5)
    arguments, options = compression.teacher_targets(Teacher(), SOURCES, beams, batch_size=4, verbose=0)
    assert arguments == (SOURCES, None)
    assert options == {"sampler": beams, "batch_size": 4, "verbose": 0}


def test_a_teacher_must_write():
    with pytest.raises(TypeError, match="Encoder writes none"):
        compression.teacher_targets(tiny.backbone("bert"), SOURCES, None)
