"""Text files from templates that stand beside the code that fills them in."""

from typing import Any


def render(room: str, template: str, **values: Any) -> str:
    """Return a template of a room (``deploy.targets``), filled in."""
    from jinja2 import Environment, PackageLoader, StrictUndefined  # only where a bundle is made

    environment = Environment(
        loader=PackageLoader(room, "."),
        autoescape=False,  # Markdown, shell, protobuf text
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(**values)
