"""All choices of pairs that keep to groups, by looking at each."""

from itertools import product

import numpy as np


def every_choice(shape, weight_groups, activation_groups, allowed):
    """All options [P, L] that are allowed and keep to the groups, by looking at each."""
    layers, weights, activations = shape
    kept = []
    for options in product(range(weights * activations), repeat=layers):
        w, a = np.divmod(options, activations)
        if all(allowed[layer, w[layer], a[layer]] for layer in range(layers)) and all(
            (weight_groups[i] != weight_groups[j] or w[i] == w[j])
            and (activation_groups[i] != activation_groups[j] or a[i] == a[j])
            for i in range(layers)
            for j in range(i)
        ):
            kept.append(options)
    return np.array(kept, int).reshape(-1, layers)
