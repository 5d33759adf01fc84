"""Tests of agent/cli/artefacts.py: the games of an artefact are those it was judged on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_verify import made  # noqa: F401

from agent.cli.artefacts import game_facts, games_of, settings_of
from agent.cli.settings import load_settings
from agent.freeze import artefact


def test_the_games_are_those_of_the_gate(made: Path) -> None:  # noqa: F811
    """The settings that an artefact remembers make the same games: same seeds, same observations."""
    card = artefact.read(made).card
    settings = settings_of(card)
    assert game_facts(settings) == card.source["games"]
    first, again = games_of(card, 3), games_of(card, 3)
    try:
        np.testing.assert_array_equal(first.current.observation, again.current.observation)
    finally:
        first.close()
        again.close()


def test_settings_that_are_none_are_refused(made: Path) -> None:  # noqa: F811
    """An artefact from elsewhere may say anything: a wrong game section is one sentence."""
    card = artefact.read(made).card
    for games in (None, {"seed": 0}, {"seed": 0, "game": {"no_such_setting": 1}}):
        with pytest.raises(ValueError, match="policy.json"):
            settings_of(card.model_copy(update={"source": {**card.source, "games": games}}))
    assert game_facts(load_settings("cartpole"))["seed"] == 0
