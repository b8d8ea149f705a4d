"""`petsage build`: a feature from a request, what it is to be instead, or its way back.

Longer than 300 lines, for all the options, and for what does not go together of them.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final

import typer

from petsage.builder.events import BuildError, Stage, Tell, tell_failure
from petsage.errors import PetSageError, StartError
from petsage.running_server import listening_url
from petsage.settings import load_settings

if TYPE_CHECKING:
    from petsage.builder.data import Data

# The command imports what it needs itself: its help needs no builder, and its schema no tools.
# ruff: noqa: PLC0415

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


class WrongUseError(PetSageError):
    """Options that do not go together."""

    exit_code: ClassVar[int] = 2


def build(
    request: Annotated[
        str | None,
        typer.Argument(
            help="A file that ends in .toml or .json, `-` for standard input, or a feature's name."
        ),
    ] = None,
    *,
    description: Annotated[str | None, typer.Option(help="What the feature is for.")] = None,
    tags: Annotated[
        list[str] | None,
        typer.Option("--tag", help="A tag of its endpoints; may be given several times."),
    ] = None,
    version: Annotated[
        str | None, typer.Option(help="The feature's version, MAJOR.MINOR.PATCH.")
    ] = None,
    fields: Annotated[
        list[str] | None,
        typer.Option(
            "--field",
            metavar="NAME:TYPE",
            help="A field of a resource, 'born:date?', 'kind:dog|cat', 'code:str,unique', "
            "'age:int=1'; may be given several times.",
        ),
    ] = None,
    item: Annotated[
        str | None, typer.Option(help="What one of the resource is called, with --field.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="The folder of features; else the first of [catalog].folders."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show each file, and write nothing.")
    ] = False,
    update: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Change the feature that was built under this name: --field adds a field. Or the "
            "file of a request, which is what it is to be.",
        ),
    ] = None,
    undo: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Remove the feature that was built under this name."),
    ] = None,
    drop_data: Annotated[
        bool,
        typer.Option("--drop-data", help="With --undo: what it keeps in the database, too."),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="With --undo: though its files were edited.")
    ] = False,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON Schema of a request.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")] = False,
) -> None:
    """Builds a feature: written, checked, tested and served before it is there.

    Exit code 1 if it is not built, or not updated; nothing has changed then.
    \f
    Longer than 40 lines: each option is an argument, with its help.
    """  # noqa: D301 - a help ends where a page does
    flags = {
        "description": description,
        "tags": tags,
        "version": version,
        "fields": fields,
        "item": item,
    }
    given = {key: value for key, value in flags.items() if value is not None and value != []}
    _require_one_thing(
        request,
        given,
        {
            "--output": output is not None,
            "--dry-run": dry_run,
            "--update": update is not None,
            "--undo": undo is not None,
            "--drop-data": drop_data,
            "--force": force,
            "--schema": schema,
        },
    )
    if schema:
        typer.echo(json.dumps(_schema(), indent=2))
        return
    asked = _Asked(request, given, update, undo, dry_run, force, drop_data)
    if not _told(asked, output, as_json=as_json):
        raise typer.Exit(1)


@dataclass(frozen=True)
class _Asked:
    """What the command line asks for, as `build` has it."""

    request: str | None
    flags: Mapping[str, Any]
    update: str | None
    undo: str | None
    dry_run: bool
    force: bool
    drop_data: bool

    @property
    def what(self) -> str:
        """What is told to be complete, or to have failed."""
        if self.undo is not None:
            return "UNDO"
        return "DRY RUN" if self.dry_run else "BUILD" if self.update is None else "UPDATE"


def _require_one_thing(
    request: str | None, flags: Mapping[str, Any], options: Mapping[str, bool]
) -> None:
    """Refuses what does not go together.

    Raises:
        WrongUseError: it does not, or nothing is asked for.
    """
    asked = ["REQUEST"] * (request is not None) + [
        {"tags": "--tag", "fields": "--field"}.get(flag, f"--{flag}") for flag in flags
    ]
    excluded = {
        "--schema": [
            *(*asked, "--output", "--dry-run"),
            *("--update", "--undo", "--drop-data", "--force"),
        ],
        "--undo": [*asked, "--update", "--dry-run"],
        "--update": ["REQUEST", "--item", "--drop-data"],
    }
    for option, others in excluded.items():
        wrong = [each for each in others if each in asked or options.get(each)]
        if options[option] and wrong:
            raise WrongUseError(
                f"{option} does not go with {', '.join(wrong)}", fix="leave one of them out"
            )
    if options["--schema"] or options["--undo"]:
        return
    _refuse_what_undo_takes(options)
    if options["--update"]:
        return
    if "item" in flags and "fields" not in flags:
        raise WrongUseError("--item goes with --field", fix="add --field, or leave it out")
    if request is None:
        raise WrongUseError(
            "nothing says what to build",
            fix="name a file of TOML or JSON, `-` for standard input, or a feature: "
            "`petsage build smoke_test --description 'verify logs'`",
        )


def _refuse_what_undo_takes(options: Mapping[str, bool]) -> None:
    if options["--force"]:
        raise WrongUseError(
            "--force goes with --undo alone: what is there is never built over",
            fix="write `petsage build --undo NAME --force`, and build it again",
        )
    if options["--drop-data"]:
        raise WrongUseError(
            "--drop-data goes with --undo alone",
            fix="write `petsage build --undo NAME --drop-data`",
        )


def _schema() -> dict[str, Any]:
    from petsage.builder.request import FeatureRequest

    return {"$schema": _DIALECT, **FeatureRequest.model_json_schema()}


@dataclass(frozen=True)
class _Places:
    """Where a feature goes to.

    Attributes:
        folder: the folder of features that it is in.
        page_folder: where its page is; None for nowhere.
        beside: the other folders of features.
        address: where a server with these settings is asked.
    """

    folder: Path
    page_folder: Path | None
    beside: list[Path]
    address: str


def _places(output: Path | None) -> _Places:
    settings = load_settings()
    address = listening_url(settings)
    folders = settings.catalog.folders
    if output is not None:
        others = [each for each in folders if each.absolute() != output.absolute()]
        return _Places(output, None, others if len(others) < len(folders) else [], address)
    if not folders:
        raise StartError(
            "[catalog].folders is empty, so there is no folder to build in",
            fix='set it to ["features"], or name a folder with --output',
        )
    folder, *beside = folders
    # Of `.` and `..`, the parent is not what stands above.
    above = folder.parent if folder.name.strip(".") else folder / ".."
    return _Places(folder, above / "docs" / "features", beside, address)


def _told(asked: _Asked, output_folder: Path | None, *, as_json: bool) -> bool:
    """Does it, tells it, and says whether it is done."""
    from petsage.build_display import Output, open_display
    from petsage.builder.interruption import Interrupted, raising
    from petsage.builder.verification import require_tools

    places, output = _places(output_folder), Output()
    with open_display(output, as_json=as_json) as display:
        try:
            require_tools()  # before anything is imported that needs them
            is_done = True
            if asked.undo is not None:
                with raising() as begin:
                    _undo(asked, places, display.tell, begin)
            elif asked.dry_run:
                with raising():
                    _show(asked, places, display.tell)
            elif asked.update is not None:
                is_done = _update(asked.update, asked.flags, places, display.tell)
            else:
                is_done = _build(asked.request, asked.flags, places, display.tell)
        except BuildError as error:
            tell_failure(asked.what, error, display.tell)
            is_done = False
        except Interrupted as interrupted:
            stage: Stage = "undo" if asked.undo is not None else "decode"
            problem = f"it was interrupted by {interrupted.name}"
            end = BuildError(problem, fix="run it again", stage=stage)
            tell_failure(asked.what, end, display.tell)
            raise typer.Exit(interrupted.exit_code) from None
    return is_done and not output.is_lost


def _build(request: str | None, flags: Mapping[str, Any], places: _Places, tell: Tell) -> bool:
    from petsage.builder.building import build as build_feature
    from petsage.builder.request_reader import read_request

    return asyncio.run(
        build_feature(
            lambda: read_request(request, flags),
            folder=places.folder,
            page_folder=places.page_folder,
            beside=places.beside,
            address=places.address,
            tell=tell,
        )
    )


def _update(source: str, flags: Mapping[str, Any], places: _Places, tell: Tell) -> bool:
    from petsage.builder.update_reader import read_update
    from petsage.builder.updating import update

    return asyncio.run(
        update(
            lambda: read_update(source, flags, places.folder.absolute()),
            folder=places.folder,
            page_folder=places.page_folder,
            beside=places.beside,
            address=places.address,
            tell=tell,
        )
    )


def _show(asked: _Asked, places: _Places, tell: Tell) -> None:
    """Tells each file as it would be written."""
    from petsage.builder.building import show
    from petsage.builder.request_reader import read_request
    from petsage.builder.update_reader import read_update
    from petsage.builder.updating import show_update

    if asked.update is not None:
        update = read_update(asked.update, asked.flags, places.folder.absolute())
        show_update(update, places.folder, places.page_folder, tell)
    else:
        request = read_request(asked.request, asked.flags)
        show(request, places.folder, places.page_folder, tell, beside=places.beside)


def _undo(asked: _Asked, places: _Places, tell: Tell, begin: Callable[[], None]) -> None:
    from petsage.builder.removal import remove_feature

    remove_feature(
        places.folder,
        asked.undo or "",
        page_folder=places.page_folder,
        beside=places.beside,
        force=asked.force,
        tell=tell,
        begin=begin,
        data=_data() if asked.drop_data else None,
    )


def _data() -> "Data":
    from petsage.builder.data import Data
    from petsage.letting_go import require_unserved

    settings = load_settings()
    return Data(settings.database, partial(require_unserved, settings))
