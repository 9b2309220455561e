"""Draws one_batch.svg: python docs/pictures/one_batch.py"""

from __future__ import annotations

from pathlib import Path

ROWS = (
    ("acme/sst2", "#e8590c", 5, "a warm and funny film", "positive"),
    ("acme/topics@3", "#1971c2", 8, "shares rose after the report", "business"),
    ("zoo/intents@canary", "#2f9e44", 3, "my card has not arrived yet", "card_arrival"),
    ("(base model)", "#868e96", 0, "translate to German: good day", "Guten Tag"),
)
WIDTH, HEIGHT = 940, 330
FONT = "font-family='ui-monospace, SFMono-Regular, Menlo, monospace'"


def text(x: float, y: float, content: str, **style: str | int) -> str:
    look = {"font-size": 13, "fill": "#212529", "text-anchor": "start"} | {
        {"size": "font-size", "anchor": "text-anchor"}.get(name, name): value for name, value in style.items()
    }
    attributes = " ".join(f"{name}='{value}'" for name, value in look.items())
    return f"<text x='{x}' y='{y}' {attributes} {FONT}>{content}</text>"


def box(x: float, y: float, w: float, h: float, fill: str, stroke: str = "none", r: int = 3) -> str:
    return f"<rect x='{x}' y='{y}' width='{w}' height='{h}' rx='{r}' fill='{fill}' stroke='{stroke}'/>"


def arrow(x1: float, x2: float, y: float) -> str:
    ends = f"x1='{x1}' y1='{y}' x2='{x2}' y2='{y}'"
    return f"<line {ends} stroke='#495057' stroke-width='1.5' marker-end='url(#tip)'/>"


def picture() -> str:
    """The whole SVG."""
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {HEIGHT}' role='img' "
        "aria-label='Requests for four tasks share one batch of one frozen T5'>",
        "<defs><marker id='tip' viewBox='0 0 10 10' refX='9' refY='5' markerWidth='7' markerHeight='7' "
        "orient='auto'><path d='M0 0 L10 5 L0 10 z' fill='#495057'/></marker></defs>",
        box(0, 0, WIDTH, HEIGHT, "#ffffff", r=8),
        text(20, 32, "requests name a task", fill="#495057"),
        text(215, 32, "prompt rows + text = one batch", fill="#495057"),
        text(632, 32, "one frozen T5", fill="#495057"),
        text(800, 32, "answers", fill="#495057"),
        box(625, 48, 130, 210, "#fff4e6", "#f08c00", 8),
        text(690, 140, "encoder", anchor="middle"),
        text(690, 162, "decoder", anchor="middle"),
        text(690, 190, "loaded once", size=11, fill="#868e96", anchor="middle"),
    ]
    for number, (task, colour, length, words, answer) in enumerate(ROWS):
        y = 56 + number * 52
        parts += [text(20, y + 22, task, fill=colour), arrow(176, 208, y + 17)]
        parts += [box(215 + 13 * i, y + 4, 11, 26, colour) for i in range(length)]
        start = 215 + 13 * length
        parts += [box(start, y + 4, 592 - start, 26, "#f1f3f5"), text(start + 8, y + 22, words, size=12)]
        parts += [arrow(596, 622, y + 17), arrow(758, 792, y + 17), text(800, y + 22, answer, fill=colour)]
    small: dict[str, str | int] = {"size": 11, "fill": "#495057", "anchor": "middle"}
    parts += [
        box(215, 276, 377, 38, "#f8f9fa", "#adb5bd", 6),
        text(403, 292, "prompt rows: a table on the device, filled from the", **small),
        text(403, 307, "versioned store; a prompt is rows of an embedding", **small),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    (Path(__file__).parent / "one_batch.svg").write_text(picture())
