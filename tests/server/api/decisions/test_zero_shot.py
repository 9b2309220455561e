from __future__ import annotations

from chorus_server.api.decisions.zero_shot import zero_shot_labels, zero_shot_text
from chorus_server.api.schemas.questions import openai_questions, system_questions


def test_the_text_of_a_predicate_says_yes_and_no() -> None:
    asked = {
        "type": "noul",
        "instructions": "Is the customer asking for money back?",
        "criteria": {"true": "They want a refund"},
    }
    (question,) = system_questions({"refund": asked})
    assert zero_shot_labels(question) == ("yes", "no")
    assert zero_shot_text(question, b"I was charged twice.").decode() == (
        "Is the customer asking for money back?\nOPTIONS:\n- yes: They want a refund\n- no\n\n"
        "I was charged twice."
    )


def test_choices_and_levels_are_their_own_labels() -> None:
    choice, score = openai_questions(
        [
            {"type": "choice", "instructions": "Which?", "choices": [{"value": True}, {"value": "other"}]},
            {"type": "score", "instructions": "", "levels": [{"label": "calm"}, {"label": None}]},
        ]
    )
    assert zero_shot_labels(choice) == ("true", "other")
    assert zero_shot_labels(score) == ("calm", "1")
    assert zero_shot_text(score, b"x") == b"OPTIONS:\n- calm\n- 1\n\nx"
