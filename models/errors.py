"""What can go wrong with a model, as one family."""


class ModelError(ValueError):
    """A variant or a checkpoint that cannot be used; the message is one line and says what to do."""
