"""The parameters that ship with the repository."""
