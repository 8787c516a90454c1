"""The faults of `mutations` can still be planted: what each replaces stands in its file, once."""

import mutations


def test_every_fault_can_be_planted():
    assert mutations.misfits() == []


def test_faults_are_in_as_many_modules():
    assert len({fault.path for fault in mutations.FAULTS}) == len(mutations.FAULTS) == 25
    assert all(fault.right != fault.wrong for fault in mutations.FAULTS)
