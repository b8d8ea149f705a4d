"""The files of a feature from its plan, by templates that know no feature's name."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from petsage.builder import expressions, field_code, field_strategies, quoting, resource_words
from petsage.builder.growth import Growth
from petsage.builder.importing import with_imports
from petsage.builder.migration_code import STEPS, added_steps
from petsage.builder.plan import Plan
from petsage.builder.request import FeatureRequest
from petsage.builder.resource_code import ResourceCode

_TEMPLATES: Final = Path(__file__).parent / "templates"
_MOUNT: Final = "/api/v1"

INDEX: Final = f"{STEPS}/__init__.py"
"""The module that names a feature's migrations."""

# By the path within the folder; `{name}` is the feature's.
_OF_PROBES: Final = {
    "__init__.py": "init.py.jinja",
    "models.py": "models.py.jinja",
    "routes.py": "routes.py.jinja",
    "tests/test_{name}.py": "tests.py.jinja",
    "README.md": "README.md.jinja",
}
_OF_RESOURCES: Final = {
    "__init__.py": "resource/init.py.jinja",
    INDEX: "resource/migrations.py.jinja",
    "README.md": "README.md.jinja",
}

# Templates place text from outside by these alone; autoescape knows HTML, and none is written.
_environment: Final = Environment(  # noqa: S701 - no HTML; each is quoted in its way # nosec B701
    loader=FileSystemLoader(_TEMPLATES),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_environment.globals.update(
    literal=quoting.literal,
    sentence=quoting.sentence,
    docline=quoting.docline,
    paragraph=quoting.paragraph,
    cell=quoting.cell,
    fenced=quoting.fenced,
    expression=expressions.expression,
    constant=expressions.constant,
    call=expressions.call,
    subscript=expressions.subscript,
    alias=field_code.alias,
    in_model=field_code.in_model,
    set_apart=field_code.set_apart,
    default_apart=field_code.default_apart,
    in_update=field_code.in_update,
    column=field_code.column,
    strategies_in=field_strategies.strategies_in,
    changes_of=field_strategies.changes_of,
    kind_of=resource_words.kind_of,
    commands=resource_words.commands,
    wrapped=resource_words.wrapped,
    json_block=resource_words.json_block,
    default_version=FeatureRequest.model_fields["version"].default,
    mount=_MOUNT,
)
_environment.filters.update(
    upper_first=lambda text: f"{text[:1].upper()}{text[1:]}",
    in_words=resource_words.in_words,
    routes_of=lambda code: (f"{code.module}.routes", f"{code.name}_routes"),
    words=lambda name: " ".join(part for part in name.split("_") if part),
)


def render(plan: Plan) -> dict[str, str]:
    """Every file of the folder by its path in it, not yet formatted; `feature.toml` is not one."""
    if not plan.resources:
        return dict(_filled(plan, _OF_PROBES))
    codes = [ResourceCode(plan, resource) for resource in plan.resources]
    steps = [f"m{n:04}_create_{code.resource.table}" for n, code in enumerate(codes, 1)]
    files = dict(_filled(plan, _OF_PROBES)) if plan.probes else {}
    if plan.probes:
        files["tests/test_probes.py"] = files.pop(f"tests/test_{plan.name}.py")
    files.update(_filled(plan, _OF_RESOURCES, codes, steps))
    for code, step in zip(codes, steps, strict=True):
        files[f"{STEPS}/{step}.py"] = with_imports(_text("migration", code=code), {})
        files.update(_files_of(code))
    return files


def render_update(
    plan: Plan, growths: Iterable[Growth], steps: Sequence[str]
) -> tuple[dict[str, str], list[str]]:
    """Every file of a feature whose tables have come about in steps, not yet formatted.

    Args:
        plan: the feature as it is to be.
        growths: what it has, and its tables have not yet.
        steps: the names of the migrations that it has; they are no files of these.

    Returns:
        The files, and the names of all migrations, those that were added behind the others.
    """
    files = render(plan)
    if not plan.resources:
        return files, []
    codes = [ResourceCode(plan, resource) for resource in plan.resources]
    # Tables come about as they did; how they would now is nobody's to know.
    files = {within: text for within, text in files.items() if not is_step(within)}
    names = [*steps]
    for step in added_steps(codes, growths, steps):
        text = with_imports(_text("added_migration", step=step), {})
        files[f"{STEPS}/{step.name}.py"] = text
        names.append(step.name)
    files[INDEX] = render_index(names)
    return files, names


def render_index(steps: Sequence[str]) -> str:
    """The module that names each migration, not yet formatted."""
    return _text("migrations", steps=steps)


def is_step(within: str) -> bool:
    """Whether a file is a migration, which nobody makes anew."""
    return within.startswith(f"{STEPS}/") and within != INDEX


def _filled(
    plan: Plan,
    files: Mapping[str, str],
    codes: Sequence[ResourceCode] = (),
    steps: Sequence[str] = (),
) -> Iterator[tuple[str, str]]:
    for within, template in files.items():
        yield (
            within.format(name=plan.name),
            _environment.get_template(template).render(
                plan=plan,
                request=plan.request,
                probes=plan.probes,
                codes=codes,
                steps=steps,
            ),
        )


def _files_of(code: ResourceCode) -> Iterator[tuple[str, str]]:
    """The modules of a resource, and its tests."""
    class_name = code.resource.class_name
    models = [
        f"{class_name}{each}" for each in ("Create", "Page", "Query", "Read", "Replace", "Update")
    ]
    own = {".": ["store"], ".models": models}
    if code.folder:
        yield f"{code.folder}__init__.py", _text("package", code=code)
    for module in ("models", "routes", "store"):
        own_names = {} if module == "models" else own
        yield f"{code.folder}{module}.py", with_imports(_text(module, code=code), own_names)
    own = {
        "..migrations": ["MIGRATIONS"],
        f"..{code.module[1:]}.store" if code.folder else "..store": ["metadata"],
    }
    yield f"tests/test_{code.package}.py", with_imports(_text("tests", code=code), own)


def _text(template: str, **given: Any) -> str:
    return _environment.get_template(f"resource/{template}.py.jinja").render(**given)
