"""The text with which the base model is asked.

    Is the customer asking for money back?
    OPTIONS:
    - yes: They want a refund
    - no

    I was charged twice.

The state comes last, so that cutting a long one cuts nothing else.
"""

from __future__ import annotations

from chorus_server.api.schemas.questions import Question

_TRUTH = ("yes", "no")


def zero_shot_labels(question: Question) -> tuple[str, ...]:
    """What the base model may answer: a language model knows `yes` and `no` better than `true` and
    `false`."""
    return _TRUTH if question.kind == "predicate" else tuple(option.text for option in question.options)


def zero_shot_text(question: Question, state: bytes) -> bytes:
    """The question and its options, then the state."""
    lines = [question.instructions] if question.instructions else []
    lines.append("OPTIONS:")
    for label, option in zip(zero_shot_labels(question), question.options, strict=True):
        lines.append(f"- {label}: {option.description}" if option.description else f"- {label}")
    return "\n".join(lines).encode() + b"\n\n" + state
