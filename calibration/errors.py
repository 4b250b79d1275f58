"""What can go wrong with data and calibration, as one family."""


class DataError(ValueError):
    """Images, masks or lists that cannot be used; one line that names the file and the remedy."""


class CalibrationError(ValueError):
    """Statistics that cannot be collected, read or used; one line that says what to do."""
