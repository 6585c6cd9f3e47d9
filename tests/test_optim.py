import functools

import numpy as np

from lsanet_jax import optim


def test_learning_rate_falls_at_the_milestones():
    step = functools.partial(
        optim.learning_rate_schedule, 1e-3, kind="step", epochs=100, milestones=(0.5, 0.75)
    )
    rate = step(steps_per_epoch=5)
    np.testing.assert_allclose([rate(0), rate(249)], 1e-3)
    np.testing.assert_allclose([rate(250), rate(374)], 1e-4, rtol=1e-6)
    np.testing.assert_allclose([rate(375), rate(499)], 1e-5, rtol=1e-6)
    # In binary, times 100 a little less than 29 and 57.
    rate = step(steps_per_epoch=1, milestones=(0.29, 0.57))
    np.testing.assert_allclose([rate(28), rate(29), rate(56), rate(57)], [1e-3, 1e-4, 1e-4, 1e-5])
    # None before the first step.
    assert step(steps_per_epoch=5, epochs=1)(4) == np.float32(1e-3)
    rate = step(steps_per_epoch=5, kind="cosine")
    np.testing.assert_allclose([rate(0), rate(250), rate(500)], [1e-3, 5e-4, 0], atol=1e-9)
    assert step(steps_per_epoch=5, kind="constant")(499) == np.float32(1e-3)
