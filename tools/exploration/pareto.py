"""Which chips are worth their size, and a picture of it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 460, 330
LEFT, RIGHT, TOP, BOTTOM = 74, 18, 44, 52  # margins of a panel
FRONT, REST, INK, SOFT, GRID = "#2f6db5", "#b8c0ca", "#1c2430", "#5b6675", "#e6e9ee"


@dataclass(frozen=True)
class Point:
    label: str
    size: float  # what it costs: less is better
    speed: float  # more is better


def front(points: Sequence[Point]) -> list[Point]:
    """Those that no other beats in speed without being larger, by size."""
    best: list[Point] = []
    for point in sorted(points, key=lambda p: (p.size, -p.speed)):
        if not best or point.speed > best[-1].speed:
            best.append(point)
    return best


def picture(panels: dict[str, Sequence[Point]], x_title: str, y_title: str) -> str:
    """An SVG with a panel for each title, side by side in two columns."""
    columns = min(len(panels), 2)
    rows = -(-len(panels) // columns)
    parts = [
        f'<g transform="translate({i % columns * WIDTH},{i // columns * HEIGHT})">'
        + "".join(_panel(title, points, x_title, y_title))
        + "</g>"
        for i, (title, points) in enumerate(panels.items())
    ]
    size = (
        f'viewBox="0 0 {columns * WIDTH} {rows * HEIGHT}" width="{columns * WIDTH}" height="{rows * HEIGHT}"'
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="11">'
        f'<rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


def _panel(title: str, points: Sequence[Point], x_title: str, y_title: str):
    most_x, most_y = (_round_up(1.05 * max(getattr(p, key) for p in points)) for key in ("size", "speed"))

    def at(point: Point) -> tuple[float, float]:
        x = LEFT + (WIDTH - LEFT - RIGHT) * point.size / most_x
        return x, HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * point.speed / most_y

    yield _text(LEFT, 20, title, 'font-size="14" font-weight="bold"')
    yield _text(LEFT, 36, f"{y_title}; blue: fastest of its size", f'fill="{SOFT}"')
    yield _text(WIDTH - RIGHT, HEIGHT - 10, x_title, f'fill="{SOFT}" text-anchor="end"')
    for i in range(5):
        y, x = HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * i / 4, LEFT + (WIDTH - LEFT - RIGHT) * i / 4
        yield f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}" stroke="{GRID}"/>'
        yield _text(LEFT - 6, y + 4, f"{most_y * i / 4:,.0f}", f'fill="{SOFT}" text-anchor="end"')
        yield _text(x, HEIGHT - BOTTOM + 16, f"{most_x * i / 4:.2f}", f'fill="{SOFT}" text-anchor="middle"')
    best = front(points)
    line = " ".join("{:.1f},{:.1f}".format(*at(point)) for point in best)
    yield f'<polyline points="{line}" fill="none" stroke="{FRONT}" stroke-width="1.5"/>'
    for point in points:
        x, y = at(point)
        on_front = point in best
        tip = f"<title>{escape(point.label)}: {point.speed:,.1f}</title>"
        fill = FRONT if on_front else REST
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{4.5 if on_front else 3.5}" fill="{fill}">{tip}</circle>'
    yield from _labels([(at(point), point.label) for point in best])


def _labels(places: Sequence[tuple[tuple[float, float], str]]):
    """Beside the points, on the side that has room; one that would cover another is left to the table."""
    taken: list[tuple[float, float, float, float]] = []
    for (x, y), label in places:
        width = 6.4 * len(label)
        left = x + 8 if x + 8 + width < WIDTH - RIGHT else x - 8 - width
        for top in (y + 18, y - 10):
            box = (left, top - 9, left + width, top + 3)
            if not any(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in taken):
                taken.append(box)
                halo = 'stroke="#fff" stroke-width="3" paint-order="stroke"'
                yield _text(left, top, label, f'fill="{INK}" {halo}')
                break


def _round_up(value: float) -> float:
    """To a number whose quarters are round."""
    power = 10 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10) if step * power >= value)


def _text(x: float, y: float, text: str, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {more}>{escape(text)}</text>'
