"""The picture of a run: a bar for what a request costs each server, as SVG."""

from dataclasses import dataclass
from html import escape

from benchmarks.measure import Round
from benchmarks.servers import SERVERS
from benchmarks.summary import Spread, spread

_WIDTH, _LABELS, _MARGIN, _FIGURES = 900, 250, 16, 96
_BAR, _GAP, _TOP = 15, 9, 82
# Colours that tell the kinds apart for the colour-blind, too, on white and on black.
_STYLE = """\
text { font: 13px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #1f2328; }
.title { font-size: 16px; font-weight: 600; }
.quiet { fill: #59636e; }
.own { font-weight: 600; }
.petsage { fill: #c2410c; }
.ours { fill: #3b6fb6; }
.docs { fill: #9dbbe0; }
.none { fill: #8c959f; }
.spread { stroke: #1f2328; stroke-width: 1.5; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; }
  .quiet { fill: #9198a1; }
  .petsage { fill: #fb8147; }
  .ours { fill: #6ea8fe; }
  .docs { fill: #33558a; }
  .none { fill: #6e7681; }
  .spread { stroke: #e6edf3; }
}
"""
_LEGEND = (
    ("petsage", "PetSage"),
    ("ours", "PetSage's log pipeline"),
    ("docs", "python-json-logger"),
    ("none", "no logs at all"),
)


@dataclass(frozen=True)
class _Group:
    """The bars of one server, by their kind; the cheapest group comes first."""

    title: str
    bars: dict[str, Spread]

    @property
    def order(self) -> float:
        """What the group is sorted by: the same logs where there are either."""
        return next(iter(self.bars.values())).median


def chart(rounds: list[Round]) -> str:
    """The SVG of one or more rounds; the same for the same rounds."""
    groups = _groups(rounds)
    most = max(bar.greatest for group in groups for bar in group.bars.values())
    per_us = (_WIDTH - _LABELS - _FIGURES - _MARGIN) / most
    lines, top = [], _TOP
    for group in groups:
        height = _BAR * len(group.bars)
        own = ' class="own"' if "petsage" in group.bars else ""
        lines.append(
            f'<text x="{_LABELS - 10}" y="{top + height / 2 + 4.5:g}" text-anchor="end"{own}>'
            f"{escape(group.title)}</text>"
        )
        for kind, bar in group.bars.items():
            lines += _bar(kind, bar, top, per_us)
            top += _BAR
        top += _GAP
    height = top + _MARGIN - _GAP
    title = "CPU µs a request: less is better"
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img">',
            f"<title>{title}</title>",
            f"<style>\n{_STYLE}</style>",
            f'<text x="{_MARGIN}" y="28" class="title">{title}</text>',
            *_legend(),
            *lines,
            "</svg>\n",
        )
    )


def _groups(rounds: list[Round]) -> list[_Group]:
    bars: dict[str, dict[str, Spread]] = {}
    for name, server in SERVERS.items():
        own = [each.cpu_us for each in rounds if each.server == name]
        if own:
            kind = "petsage" if name == "petsage" else server.logs or "none"
            bars.setdefault(server.title, {})[kind] = spread(own)
    order = [kind for kind, _ in _LEGEND]
    groups = [
        _Group(title, dict(sorted(kinds.items(), key=lambda each: order.index(each[0]))))
        for title, kinds in bars.items()
    ]
    return sorted(groups, key=lambda group: (group.order, group.title))


def _bar(kind: str, bar: Spread, top: int, per_us: float) -> list[str]:
    """A bar to the median, a line from the least to the greatest, and the median as a number."""
    thick = _BAR - 2
    middle = top + thick / 2
    least, end, greatest = (
        _LABELS + value * per_us for value in (bar.least, bar.median, bar.greatest)
    )
    rect = f'x="{_LABELS}" y="{top}" width="{end - _LABELS:.1f}" height="{thick}" rx="2"'
    line = f'x1="{least:.1f}" y1="{middle:g}" x2="{greatest:.1f}" y2="{middle:g}"'
    return [
        f'<rect class="{kind}" {rect}/>',
        f'<line class="spread" {line}/>',
        f'<text x="{greatest + 7:.1f}" y="{middle + 4.5:g}">{bar.median:.0f}</text>',
    ]


def _legend() -> list[str]:
    lines, left = [], _MARGIN
    for kind, words in _LEGEND:
        lines += [
            f'<rect class="{kind}" x="{left}" y="46" width="12" height="12" rx="2"/>',
            f'<text class="quiet" x="{left + 18}" y="56.5">{escape(words)}</text>',
        ]
        left += 46 + 7 * len(words)
    return lines
