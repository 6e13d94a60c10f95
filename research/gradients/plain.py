"""The unmodified gradient of the batch. Config: {'gradient.name': 'plain'}, the default."""


def create():
    """A method that returns the base itself."""
    return lambda base, loss_fn, engine, keys: base
