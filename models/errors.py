"""What can go wrong with a model, as one family."""


class ModelError(ValueError):
    """A variant or a checkpoint that cannot be used; one line that says what to do."""
