"""What families share."""

YARN_ROPE = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
NO_SCALING = {"rope_scaling": None}
# In place of transformers' defaults, which a small vocabulary lacks.
SMALL_IDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


def but(base, *absent, **changed):
    """`base` without the keys in `absent` and with those in `changed`."""
    return {k: v for k, v in {**base, **changed}.items() if k not in absent}


def without_each(scaling):
    """Contrasts that fall back to the default of each key that has one."""
    needed = ("type", "rope_type", "factor")
    return [{"rope_scaling": but(scaling, key)} for key in scaling if key not in needed]
