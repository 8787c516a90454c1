"""The parts of a loss: weights of outputs, and divisors kept apart."""

import numpy as np

from tfxformer.training.step.loss_terms import OutputLoss, compiled_objectives


def test_outputs_count_by_their_weights_and_share_a_divisor_where_they_may():
    records = [
        OutputLoss("a", 2.0, 8.0, True, 0.5),  # mean over samples
        OutputLoss("b", 3.0, 8.0, True, 4.0),
        OutputLoss("tokens", 5.0, 21.0, False, 3.0),
        OutputLoss("sum", 7.0, None, False, 0.25),
    ]
    parts = compiled_objectives(records, [np.float32(0.75)], samples=8.0)
    # What layers add is averaged as the first mean is.
    assert [(float(part.value), part.count) for part in parts] == [
        (0.5 * 2.0 + 4.0 * 3.0 + 0.75, 8.0),
        (3.0 * 5.0, 21.0),
        (0.25 * 7.0, None),
    ]
    assert float(compiled_objectives([], [np.float32(2.0)], samples=8.0)[0].value) == 2.0
