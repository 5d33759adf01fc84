"""How a run's agent is judged, in words: what makes two scores comparable, and what does not count in them."""

from __future__ import annotations

from agent.config import Settings


def protocol(game: str, settings: Settings) -> str:
    """Return in one line how episodes of a game (by its full name) are played when an agent is judged."""
    parts = ["raw scores of whole episodes", "separate games and unseen seeds"]
    parts.append("the same number of episodes from every game")
    if settings.algo == "icebox":
        parts.append("greedy" if settings.evaluation.epsilon == 0 else f"epsilon {settings.evaluation.epsilon:g}")
    else:
        parts.append("deterministic actions")
    if game.startswith("atari/"):
        atari = settings.game.atari
        parts += [
            f"sticky actions {atari.sticky_actions:g}",
            f"frame skip {atari.frame_skip}",
            f"up to {atari.noop_max} no-ops at the start" if atari.noop_max else "no no-ops at the start",
            "fire at reset" if atari.fire_reset else "no fire at reset",
            "all 18 actions" if atari.full_action_space else "minimal actions",
            f"at most {atari.max_frames:,} frames",
        ]
    if game.startswith("minatar/"):
        minatar = settings.game.minatar
        parts += [
            f"sticky actions {minatar.sticky_actions:g}",
            "difficulty ramping" if minatar.ramping else "no ramping",
            "minimal actions" if minatar.minimal_actions else "six actions",
            f"at most {minatar.max_steps:,} steps",
        ]
    return ", ".join(parts)


def explained(game: str, settings: Settings) -> list[tuple[str, str]]:
    """Return the same as (what, how) in full sentences, with what training does differently."""
    evaluation, judged = settings.evaluation, "It always takes the action that it holds for the best"
    if settings.algo != "icebox":
        judged = "It takes its deterministic action, without sampling"
    elif evaluation.epsilon:
        chance = f"One action in {1 / evaluation.epsilon:,.0f} is random (epsilon {evaluation.epsilon:g})"
        judged = f"{chance}, the others are its best"
    rows = [
        ("Score", "The game's own points of a whole episode, before any clipping. Higher is better."),
        (
            "When",
            f"Every {evaluation.interval_steps:,} steps of training, {evaluation.episodes} whole episodes on "
            f"{min(evaluation.num_games, evaluation.episodes)} games of its own, from seeds that training never sees; "
            "every game gives the same number of episodes, so that short ones are not preferred.",
        ),
        ("How the agent acts", f"{judged}. It does not learn from these episodes."),
        ("Final score", "The mean of the last evaluation, not of the best one: picking the best would flatter."),
    ]
    if game.startswith("atari/"):
        atari = settings.game.atari
        rows += [
            ("Sticky actions", _sticky(atari.sticky_actions, "frame")),
            (
                "Frames",
                f"One step of the agent is {atari.frame_skip} frames; an episode has at most {atari.max_frames:,}.",
            ),
            (
                "Start of an episode",
                (f"Up to {atari.noop_max} random no-op steps" if atari.noop_max else "No no-op steps")
                + (
                    ", and FIRE is pressed where the game waits for it."
                    if atari.fire_reset
                    else "; FIRE is not pressed."
                ),
            ),
            ("Actions", "All 18 of the joystick." if atari.full_action_space else "Those that the game knows."),
            (
                "Lost lives",
                "End an episode for learning; scores count whole games."
                if atari.life_loss_ends
                else "Do not end an episode, neither in training nor in evaluation.",
            ),
        ]
    if game.startswith("minatar/"):
        minatar = settings.game.minatar
        rows += [
            ("Sticky actions", _sticky(minatar.sticky_actions, "step")),
            ("Difficulty", "Grows during an episode." if minatar.ramping else "Stays as it is at the start."),
            ("Actions", "Those that do something." if minatar.minimal_actions else "The common six."),
            ("Longest episode", f"{minatar.max_steps:,} steps."),
        ]
    if not game.startswith(("atari/", "minatar/")):
        rows.append(("The game", "As Gymnasium has it: no sticky actions, no no-ops, its own limit of length."))
    clip = settings.replay.reward_clip
    rows.append(
        (
            "Rewards in training",
            "As the game gives them." if clip is None else f"Clipped to at most {clip:g} either way; scores are not.",
        )
    )
    if settings.game.seeds is not None:
        rows.append(("Training seeds", f"Only {settings.game.seeds:,}; evaluations start from others."))
    return rows


def _sticky(probability: float, what: str) -> str:
    if probability == 0:
        return "None: every action is carried out."
    return f"With a chance of {100 * probability:g} % a {what} repeats the action before it."
