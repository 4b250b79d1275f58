"""Which samples of a list can be used, and why the others cannot."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from deploy.calibration.errors import DataError
from deploy.calibration.voc import Sample, read_image, read_sample

LOGGER = logging.getLogger("deploy")


@dataclass(frozen=True, kw_only=True)
class Screened:
    """The samples that can be used, in their order, and the reason for each other one by name."""

    samples: list[Sample]
    skipped: dict[str, str]


def screen(samples: Sequence[Sample], *, masks: bool) -> Screened:
    """Read every sample once and sort out those that cannot be used.

    Args:
        samples: at least one.
        masks: also read the masks; else only the images.

    Raises:
        DataError: not one of them can be used.
    """
    usable: list[Sample] = []
    skipped: dict[str, str] = {}
    for sample in samples:
        try:
            if masks:
                read_sample(sample)
            else:
                read_image(sample.image)
        except DataError as error:
            skipped[sample.name] = str(error)
        else:
            usable.append(sample)
    if not usable:
        first = next(iter(skipped.values()), "the list is empty")
        raise DataError(f"all {len(samples)} samples are bad, none can be used; the first: {first}")
    return Screened(samples=usable, skipped=skipped)


def screen_aloud(samples: list[Sample], what: str, *, masks: bool, skip_bad: bool) -> Screened:
    """Leave bad samples out, and tell which and why, even where little else is told.

    Without ``skip_bad`` all stay: the first that is read and bad is an error then.

    Raises:
        DataError: they are all bad.
    """
    if not skip_bad:
        return Screened(samples=samples, skipped={})
    screened = screen(samples, masks=masks)
    total = len(screened.samples) + len(screened.skipped)
    if screened.skipped:
        LOGGER.warning("  skipped %d of %d images of %s:", len(screened.skipped), total, what)
    for name, reason in screened.skipped.items():
        LOGGER.warning("    %s: %s", name, reason)
    return screened
