"""The errors a user can mend; the command line prints them as one line and exits with 1."""

from deploy.calibration.errors import CalibrationError, DataError
from deploy.models.errors import ModelError


class DeployError(Exception):
    """Something the user can mend; the message is one line: what, which file, what to do."""


class GraphError(DeployError):
    """An ONNX graph that cannot be read, run or transformed."""


class ExportError(DeployError):
    """A network whose exported graph does not compute what torch computes."""


class ClusterError(DeployError):
    """A cluster that cannot be reached, is lost, or computes with something else than we do."""


class ReportError(DeployError):
    """Results that are missing, unreadable or do not belong together."""


USER_ERRORS = (DeployError, ModelError, DataError, CalibrationError)
