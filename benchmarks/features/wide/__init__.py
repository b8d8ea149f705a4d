"""As many routes as `BENCH_ROUTES` says, in five shapes that all begin alike."""

import os

from petsage import Feature, Routes

routes = Routes("/wide")


async def find_pet(pet: str) -> dict[str, str]:
    """Answer with what stands in the path."""
    return {"pet": pet}


async def find_visit(owner: str, visit: int) -> dict[str, str | int]:
    """Answer with what stands in the path."""
    return {"owner": owner, "visit": visit}


for number in range(1, int(os.environ["BENCH_ROUTES"]) // 5 + 1):
    routes.get(f"/{{pet}}/a{number}")(find_pet)
    routes.get(f"/{{owner}}/b{number}/{{visit}}")(find_visit)
    routes.get(f"/c{number}/{{pet}}")(find_pet)
    routes.get(f"/{{owner}}/visits/{{visit}}/d{number}")(find_visit)
    routes.get(f"/{{pet}}/e{number}/photo")(find_pet)

feature = Feature(routes)
