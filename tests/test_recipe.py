"""Settings of a fine-tuning: what is taken, and the sentence for what is not."""

import math

import pytest

from engine import Recipe


def test_the_rate_suits_the_optimizer_unless_given():
    assert Recipe().peak_rate == Recipe(optimizer="adamw").peak_rate
    assert Recipe(optimizer="adamw").peak_rate < Recipe(optimizer="sgd").peak_rate
    assert Recipe(learning_rate=0.5).peak_rate == 0.5


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"epochs": 0}, "epochs must be above 0, got 0: 1 is quick."),
        ({"epochs": math.inf}, "epochs must be above 0, got inf"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0, got 0.0: leave it out"),
        ({"learning_rate": -1e-3}, "learning_rate must be above 0, got -0.001"),
        ({"learning_rate": math.nan}, "learning_rate must be above 0, got nan"),
        ({"weight_decay": -1}, "weight_decay must be at least 0, got -1"),
        ({"distillation": 1.5}, r"distillation must be a share in 0…1, got 1.5: 1 trusts"),
        ({"clip_norm": 0}, "clip_norm must be above 0, got 0: 5 is usual."),
        ({"batch_size": 0}, "batch_size must be a whole number from 1 on, got 0"),
        ({"batch_size": None}, "batch_size must be a whole number from 1 on, got None"),
        ({"evaluate_every": 2.5}, "evaluate_every must be a whole number from 1 on, got 2.5"),
        ({"evaluation_images": True}, "evaluation_images must be a whole number from 1 on"),
        ({"optimizer": "adam"}, "optimizer must be one of adamw, sgd, got 'adam'."),
        ({"step_sizes": "lsq"}, "step_sizes must be one of learned, fixed, got 'lsq'."),
        (
            {"activation_ranges": "batch"},
            "activation_ranges must be one of learned, running, fixed, got 'batch'.",
        ),
        ({"batch_norm": "folded"}, "batch_norm must be one of frozen, live, got 'folded'."),
    ],
)
def test_a_setting_out_of_range_is_named(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        Recipe(**settings)
