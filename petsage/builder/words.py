"""English as far as names of resources need it: what one of several is called.

The rules are few and ours, so that a name never changes with a release of somebody else's; who
wants another word says it with `item`.
"""

import re
from typing import Final

_IRREGULAR: Final = """
    hero heroes, potato potatoes, tomato tomatoes, echo echoes, veto vetoes, torpedo torpedoes,
    person people, child children, man men, woman women, ox oxen, mouse mice, goose geese, foot
    feet, tooth teeth, louse lice, criterion criteria, phenomenon phenomena, index indices, axis
    axes, vertex vertices, matrix matrices, appendix appendices, quiz quizzes, analysis
    analyses, crisis crises, thesis theses, diagnosis diagnoses, hypothesis hypotheses, leaf
    leaves, wolf wolves, knife knives, life lives, wife wives, half halves, shelf shelves, thief
    thieves, loaf loaves, calf calves, elf elves, hoof hooves, scarf scarves, gas gases, lens
    lenses, alias aliases, canvas canvases, atlas atlases, bias biases, iris irises, cache
    caches, ache aches, movie movies, cookie cookies, zombie zombies, calorie calories, selfie
    selfies, smoothie smoothies, rookie rookies, genie genies, tie ties, pie pies, lie lies, die
    dice, shoe shoes, toe toes, canoe canoes, use uses, abuse abuses, excuse excuses, fuse
    fuses, datum data, medium media, axe axes, lease leases, release releases
"""
_ALWAYS_MANY: Final = """
    advice aircraft analytics baggage bison cargo cattle chaos content data deer economics
    electronics equipment evidence feedback fish furniture hardware health homework information
    knowledge livestock logistics luggage machinery mail mathematics media merchandise moose
    money music news offspring pasta physics police politics poultry research rice salmon
    scissors series sheep shrimp software spacecraft species staff storage swine traffic trout
    trousers weather wildlife
"""
_PLURALS: Final = dict(pair.split() for pair in _IRREGULAR.split(","))
_UNCOUNTABLE: Final = frozenset(_ALWAYS_MANY.split())
_SINGULARS: Final = {
    plural: one for one, plural in reversed(_PLURALS.items()) if plural not in _UNCOUNTABLE
}
_IS_ONE: Final = re.compile(r"(?:ss|us|is)$")
_ES: Final = re.compile(r"(?:ss|sh|ch|x|zz|[^aou]us|[^aeou]o)es$")


def singular_of(name: str) -> str | None:
    """What one of `name` is called, "pet_owner" of "pet_owners"; None where `name` is one itself.

    What cannot be counted is counted in items: "news_item".
    """
    before, _, last = name.rpartition("_")
    lead = f"{before}_" if before else ""
    if last in _UNCOUNTABLE:
        return f"{name}_item"
    one = _one_of(last)
    return None if one is None else f"{lead}{one}"


def plural_of(name: str) -> str:
    """What several are called: "pet_owners" of "pet_owner"."""
    before, _, last = name.rpartition("_")
    return f"{before}_{_several_of(last)}" if before else _several_of(last)


def _one_of(word: str) -> str | None:
    if word in _SINGULARS:
        return _SINGULARS[word]
    if word in _PLURALS or len(word) < 3 or not word.endswith("s") or _IS_ONE.search(word):
        return None
    if word.endswith("ies") and len(word) > 4:
        return f"{word[:-3]}y"
    return word[:-2] if _ES.search(word) else word[:-1]


def _several_of(word: str) -> str:
    if word in _PLURALS:
        return _PLURALS[word]
    if re.search(r"[^aeiou]y$", word):
        return f"{word[:-1]}ies"
    return f"{word}es" if re.search(r"(?:s|x|z|ch|sh)$", word) else f"{word}s"
