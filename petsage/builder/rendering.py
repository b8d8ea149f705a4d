"""The files of a feature from its plan, by templates that know no feature's name."""

from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from petsage.builder import quoting
from petsage.builder.plan import Plan
from petsage.builder.request import FeatureRequest

_TEMPLATES: Final = Path(__file__).parent / "templates"
_MOUNT: Final = "/api/v1"

# By the path within the folder; `{name}` is the feature's.
_FILES: Final = {
    "__init__.py": "init.py.jinja",
    "models.py": "models.py.jinja",
    "routes.py": "routes.py.jinja",
    "tests/test_{name}.py": "tests.py.jinja",
    "README.md": "README.md.jinja",
}

# Templates place text from outside by these alone; autoescape knows HTML, and none is written.
_environment: Final = Environment(  # noqa: S701 - Python and Markdown, each quoted in its own way
    loader=FileSystemLoader(_TEMPLATES),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_environment.globals.update(
    literal=quoting.literal,
    sentence=quoting.sentence,
    paragraph=quoting.paragraph,
    cell=quoting.cell,
    fenced=quoting.fenced,
    default_version=FeatureRequest.model_fields["version"].default,
    mount=_MOUNT,
)


def render(plan: Plan) -> dict[str, str]:
    """Every file of the folder by its path in it, not yet formatted; `feature.toml` is not one."""
    return {
        within.format(name=plan.name): _environment.get_template(template).render(
            plan=plan, request=plan.request, probes=plan.probes
        )
        for within, template in _FILES.items()
    }
