"""Packed files with something wrong: damaged by accident, or changed with care."""

import copy
import json
import random
from typing import Any

from safetensors.torch import load, save

from engine.unpacking import METADATA, _checksum

VALUES = (None, True, -1, 0, 1, 3, 10**30, 2.5, float("nan"), "", "x", "a:input:0", [], [[]], {})


def damaged(content: bytes, chance: random.Random) -> bytes:
    """A file after an accident: bits turned, bytes lost, added, blanked or out of order."""
    kind, changed = chance.randrange(6), bytearray(content)
    place = chance.randrange(len(content))
    if kind == 0:
        for _ in range(chance.choice((1, 1, 2, 8))):
            changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    elif kind == 1:
        del changed[place:]
    elif kind == 2:
        changed[place:place] = chance.randbytes(chance.randrange(1, 40))
    elif kind == 3:
        length = chance.randrange(1, 200)
        changed[place : place + length] = bytes(len(changed[place : place + length]))
    elif kind == 4:
        other = chance.randrange(len(content))
        changed[place], changed[other] = changed[other], changed[place]
    else:
        changed[: chance.randrange(1, 9)] = chance.randbytes(8)  # the length of the header
    return bytes(changed)


def reworded(content: bytes, chance: random.Random) -> bytes:
    """A file whose plan or layout says something else, with checksums that are right again."""
    start = 8 + int.from_bytes(content[:8], "little")
    metadata = json.loads(content[8:start])[METADATA]
    tensors = load(content)
    part = chance.choice(("plan", "layout"))
    told = json.loads(metadata[part])
    for _ in range(chance.choice((1, 1, 3))):
        _reword(told, chance)
    metadata[part] = json.dumps(told)
    return save(tensors, metadata | {"checksum": _checksum(metadata)})


def _reword(told: Any, chance: random.Random) -> None:
    """Change something in a JSON document."""
    while True:
        keys = list(told) if isinstance(told, dict) else list(range(len(told)))
        if not keys:
            return
        key = chance.choice(keys)
        if isinstance(told[key], dict | list) and told[key] and chance.random() < 0.8:
            told = told[key]
            continue
        if chance.random() < 0.2:
            del told[key]
        elif isinstance(told[key], str) and told[key] and chance.random() < 0.5:
            letters = list(told[key])
            letters[chance.randrange(len(letters))] = chance.choice("0:f.x")
            told[key] = "".join(letters)
        else:
            told[key] = copy.deepcopy(chance.choice(VALUES))
        return
