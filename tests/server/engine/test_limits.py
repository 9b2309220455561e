"""What one request may ask for: one answer for the routes, for uploads and for the engine itself."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from chorus_server.engine.fake_executor import TINY_LADDER
from chorus_server.engine.limits import Limits
from chorus_server.engine.sampling import SETTINGS, UnfitSettingsError
from chorus_server.engine.scheduler.fitting import Fitter
from chorus_server.errors import InvalidInputError
from tests.server.engine.engine_tools import generate

LIMITS = Limits(TINY_LADDER)


@pytest.mark.parametrize(
    ("settings", "tokens", "names"),
    [
        ({"max_new_tokens": 33}, 4, ("max_new_tokens",)),
        ({"n": 9, "temperature": 1.0}, 4, ("n", "num_beams")),
        ({"max_new_tokens": 33, "n": 8, "temperature": 1.0}, 64, ("max_new_tokens",)),
        ({"max_new_tokens": 4, "min_new_tokens": 5}, 4, ("min_new_tokens", "max_new_tokens")),
    ],
)
def test_settings_that_do_not_fit_name_the_first_to_blame(
    settings: dict[str, Any], tokens: int, names: tuple[str, ...]
) -> None:
    with pytest.raises(UnfitSettingsError) as unfit:
        LIMITS.new_tokens_for(settings, tokens, 32)
    assert unfit.value.names == names


def test_usual_tokens_are_cut_to_the_room_and_those_asked_for_are_not() -> None:
    assert LIMITS.new_tokens_for({}, 4, 1000) == (32, 32)
    assert LIMITS.new_tokens_for({"max_new_tokens": 3}, 4, 1000) == (3, 32)


@pytest.mark.parametrize("slots", [1, 2, 8, 9])
@pytest.mark.parametrize("new_tokens", [1, 8, 9, 32, 33])
@pytest.mark.parametrize("tokens", [1, 16, 17, 64])
def test_the_engine_takes_what_is_allowed_and_refuses_the_rest_in_the_same_words(
    tokens: int, new_tokens: int, slots: int
) -> None:
    request = generate((4,) * tokens, max_new_tokens=new_tokens, n=slots, temperature=1.0)
    fitter, settings = Fitter(TINY_LADDER, 1000, 40), asdict(request.sampling)
    assert settings.keys() == SETTINGS.keys()
    try:
        LIMITS.new_tokens_for(settings, tokens, 32)
    except UnfitSettingsError as unfit:
        with pytest.raises(InvalidInputError) as refused:
            fitter.fit(request)
        assert (refused.value.message, refused.value.field) == (unfit.message, unfit.names[0])
    else:
        assert fitter.fit(request).shape in LIMITS.shapes(tokens, slots, new_tokens)
