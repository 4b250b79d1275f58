"""The text files of a bundle, from the templates beside this file."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def render(template: str, **values: Any) -> str:
    """Return a template filled in."""
    environment = Environment(
        loader=PackageLoader("deploy.bundle", "."),
        autoescape=False,  # Markdown, shell, protobuf text
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(**values)
