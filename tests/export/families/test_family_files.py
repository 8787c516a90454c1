"""Every family as a LiteRT file, in float32 and in dynamic_int8; `family_files` says what is compared with what.

One file of each kind of layer is in the plain tests: ../test_language_model.py, ../test_litert.py.
"""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import family_files
import make_fixtures

from tfxformer.checkpoints.families import FAMILIES


@pytest.mark.slow
@pytest.mark.reference
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", family_files.cases())
def test_files_of_a_family(name, tmp_path, tiny_tokenizer):
    assert not family_files.faults(name, family_files.check(name, tmp_path / "case", tiny_tokenizer))


def test_every_family_has_a_case():
    names = family_files.cases()
    of_encoder_decoders = {name.removeprefix(family_files.SEQ2SEQ) for name in names}
    # A "new" folder is a GTE's in other words: once open, it is the same model.
    assert set(FAMILIES) - {"new"} <= of_encoder_decoders | {
        make_fixtures.CASES[name].family for name in names if name in make_fixtures.CASES
    }
