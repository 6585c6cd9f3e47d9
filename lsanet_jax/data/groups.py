"""What belongs together because each shares something with another."""

from collections.abc import Iterable, Sequence


def join(count: int, sets: Iterable[Sequence[int]]) -> list[int]:
    """Return for each of `count` things the first one that sets tie it to, perhaps over others."""
    parent = list(range(count))

    def first_of(place: int) -> int:
        while parent[place] != place:
            parent[place] = parent[parent[place]]
            place = parent[place]
        return place

    for members in sets:
        for member in members[1:]:
            first, second = sorted((first_of(members[0]), first_of(member)))
            parent[second] = first
    return [first_of(place) for place in range(count)]
