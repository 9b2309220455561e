"""What `benchmarks.tuning.protocol` and `shift` make of the answers of `chorus evaluate`, and what `recipes`
makes of two recipes' answers."""

from __future__ import annotations

from typing import Any

from benchmarks.tuning import recipes
from benchmarks.tuning.protocol import compact, row
from benchmarks.tuning.shift import shifted


def result(said: dict[str, list[str]], answers: list[str]) -> dict[str, Any]:
    """As `Commands.evaluated` gives it: every row right or wrong, by subject."""
    subjects = [
        {
            "kind": "task",
            "name": name,
            "metrics": {"accuracy": sum(map(str.__eq__, texts, answers)) / len(answers)},
            "legal": 1.0,
            "confusion": {"labels": ["no", "yes"]},
        }
        for name, texts in said.items()
    ]
    rows = [
        {"row": number, "answers": [answer], "subjects": [{"said": texts[number]} for texts in said.values()]}
        for number, answer in enumerate(answers)
    ]
    return {"subjects": subjects, "predictions": rows}


def test_predictions_are_a_character_a_row_and_a_text_that_is_no_label_is_a_question_mark() -> None:
    found = compact(result({"default/cb@1": ["yes", "no ", "maybe"]}, ["yes", "yes", "no"]))
    assert (found["truth"], found["subjects"][0]["predictions"]) == ("110", "10?")


def test_a_line_has_mean_deviation_vote_and_where_the_loss_began_and_ended() -> None:
    answers = ["yes", "no", "yes", "no"]
    prompts = {"default/cb@1": ["yes", "no", "no", "no"], "default/cb@2": ["yes", "no", "no", "yes"]}
    evaluated = compact(result(prompts, answers))
    curve = {"loss": [4.0] * 5 + [1.0] * 20}
    job = {"result": {"ensemble": {"metrics": {"test_accuracy": 1.0}}}}
    run = {
        "task": "cb", "job": job, "greedy": evaluated, "ranked": evaluated,
        "lineage": {"1": {"curve": curve}},
    }  # fmt: skip
    cells = row(run)
    assert cells[:6] == ("cb", "4", "75.0 50.0", "62.5 ± 17.7", "100.0 %", "100.0")
    assert cells[-1] == "4.000 to 1.000"


def test_shift_is_the_others_prompts_less_its_own_in_points() -> None:
    answers = ["yes", "no", "yes", "no"]
    said = {"default/sentiment@1": answers, "default/reviews@1": ["no", "no", "no", "no"]}
    files = {name: compact(result(said, answers)) for name in ("sentiment", "reviews")}
    home, away = shifted(files, "sentiment"), shifted(files, "reviews")
    assert (home["own"], home["other"], home["difference"]) == (100.0, 50.0, -50.0)
    assert (away["own"], away["other"], away["difference"]) == (50.0, 100.0, 50.0)


def test_recipes_are_compared_seed_by_seed_on_the_same_rows() -> None:
    def recipe(name: str, *predictions: str) -> dict[str, Any]:
        report = [{"accuracy": sum(map(str.__eq__, each, "0101")) / 4} for each in predictions]
        losses = [[9.0, 9.0], [1.0, 2.0], [1.0, 4.0]]
        return {
            "recipe": name, "report": report, "truth": "0101", "predictions": predictions,
            "losses_each_10_steps": losses,
        }  # fmt: skip

    found = [recipe("paper", "0101", "0100"), recipe("released", "0000", "0001")]
    first, second = recipes.lines({"task": "sst2", "learning_rate": 0.3, "recipes": found})
    assert first == ("sst2", "0.3", "paper", "100.0 75.0", "87.5 ± 17.7", "2.000", "")
    assert second[2:5] == ("released", "50.0 75.0", "62.5 ± 17.7")
    assert second[-1].startswith("-25.0 [")
