"""Whether a vendor's package is installed, in a version that is known."""

from importlib.metadata import PackageNotFoundError, version

from deploy.errors import DeployError


def require_package(package: str, known: str, extra: str, note: str = "") -> None:
    """See that a package is there; raises DeployError if not, or if it is of another version.

    Args:
        package: its name on the package registry.
        known: the beginning of versions that are known, such as "2.7".
        extra: of ours, that installs it.
        note: what is to be said where it is missing.
    """
    install = f"pip install 'refinenet-deploy[{extra}]'"
    try:
        found = version(package)
    except PackageNotFoundError:
        raise DeployError(f'{package} is not installed: run "{install}"{note}') from None
    if not found.startswith(f"{known}."):
        raise DeployError(
            f'{package} {found} is installed, {known} is what this version knows: run "{install}"'
        )
