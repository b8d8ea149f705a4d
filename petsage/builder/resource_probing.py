"""A resource of a feature that serves, asked as a caller would: every operation that it has."""

from collections.abc import Awaitable, Callable
from typing import Any, Final

from petsage.builder.caller import Answer, Fault, parsed, require, unlike_schema
from petsage.builder.resource_plan import PlannedResource
from petsage.worker import in_thread

Ask = Callable[..., Awaitable[Answer]]

_MOUNT: Final = "/api/v1"
_JSON: Final = "application/json"
_PROBLEM: Final = "application/problem+json"
_MERGE_PATCH: Final = {"Content-Type": "application/merge-patch+json"}


async def ask_resource(resource: PlannedResource, ask: Ask, document: Any) -> None:
    """Adds one where that can be done, asks everything of it, and deletes it where that can be.

    Each answer is held against the document. Where none can be added, the list is empty, and
    whatever is asked by an id is 404.

    Args:
        resource: what it is to be.
        ask: makes a request, as `caller.ask` does, to the server.
        document: what `/openapi.json` says.

    Raises:
        Fault: something is not as planned.
    """
    await _Asking(resource, ask, document).ask_all()


class _Asking:
    """The requests to one resource; the arguments are those of `ask_resource`."""

    def __init__(self, resource: PlannedResource, ask: Ask, document: Any) -> None:
        self._resource = resource
        self._ask = ask
        self._document = document
        self._path = f"{_MOUNT}{resource.path}"
        self._one = f"{self._path}/{{{resource.parameter}}}"
        self._place = f"{self._path}/1"
        self._condition: dict[str, str] = {"If-Match": "*"}

    async def ask_all(self) -> None:
        """Makes every request."""
        resource = self._resource
        is_there = "create" in resource.operations
        kept = await self._create() if is_there else None
        if "list" in resource.operations:
            await self._list([] if kept is None else [kept])
        if "read" in resource.operations:
            await self._read(kept)
        other = resource.other_example
        patch = dict([next(iter(resource.example.items()))])
        for operation, method, body, headers in (
            ("replace", "PUT", other, {}),
            ("update", "PATCH", patch, _MERGE_PATCH),
        ):
            if operation in resource.operations:
                await self._change(method, body, headers, 200 if is_there else 404)
        if "delete" in resource.operations:
            for status in (204, 404) if is_there else (404,):
                await self._change("DELETE", None, {}, status)

    async def _create(self) -> Any:
        """What was added, as it was answered."""
        answer = await self._answer("POST", self._path, 201, body=self._resource.example)
        by_id = self._resource.operations - {"list", "create"}
        if by_id:
            require(answer.location != "", f"{answer.where} is answered without Location")
            self._place = answer.location
        require(answer.tag != "", f"{answer.where} is answered without ETag")
        self._condition = {"If-Match": answer.tag}
        return parsed(answer)

    async def _list(self, wanted: list[Any]) -> None:
        answer = await self._answer("GET", self._path, 200)
        items = parsed(answer)["items"]
        require(items == wanted, f"{answer}, and not {len(wanted)} of them")
        await self._head(self._path)

    async def _read(self, kept: Any) -> None:
        answer = await self._answer("GET", self._place, 200 if kept is not None else 404)
        if kept is not None:
            require(parsed(answer) == kept, f"{answer}, which is not what was added")
            await self._head(self._place)
            known = await self._ask("GET", self._place, headers={"If-None-Match": answer.tag})
            require(known.status == 304 and not known.body, f"{known}, though it is known")

    async def _change(self, method: str, body: Any, headers: dict[str, str], status: int) -> None:
        said = {**headers, **self._condition}
        answer = await self._answer(method, self._place, status, body=body, headers=said)
        if answer.tag:
            self._condition = {"If-Match": answer.tag}

    async def _head(self, path: str) -> None:
        answer = await self._ask("HEAD", path)
        require(answer.status == 200 and not answer.body, str(answer))

    async def _answer(self, method: str, path: str, status: int, **given: Any) -> Answer:
        """The answer, once it is sure that it is what the document says."""
        answer = await self._ask(method, path, **given)
        require(answer.status == status, f"{answer}, and not with {status}")
        if status == 204:
            require(not answer.body, str(answer))
            return answer
        require(answer.kind == (_JSON if status < 400 else _PROBLEM), str(answer))
        documented = self._path if path == self._path else self._one
        wrong = await in_thread(self._wrong_in, parsed(answer), documented, method, status)
        if wrong is not None:
            raise Fault(f"{answer.where} is not answered as documented: {wrong}")
        return answer

    def _wrong_in(self, body: Any, path: str, method: str, status: int) -> str | None:
        return unlike_schema(body, path, self._document, method=method, status=status)
