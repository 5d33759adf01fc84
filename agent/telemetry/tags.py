"""Every number a run shows in TensorBoard: section, chart, unit and meaning. Layout and documentation come from here.

Names are stable-baselines3's where it has one. The step axis is environment steps, over all games.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple


class Tag(NamedTuple):
    """What a tag means and where it is drawn. Tags of one chart share a unit; "1" is a number without one.

    They also share how often they are written: TensorBoard scales a chart to the middle 90 % of its points, and four
    evaluations among a hundred training scores would lie outside of it.
    """

    section: str
    chart: str
    unit: str
    meaning: str

    @property
    def title(self) -> str:
        """The chart's title, with the unit of its numbers unless it says it already."""
        return self.chart if self.unit == "1" or self.unit in self.chart.lower() else f"{self.chart} ({self.unit})"


PERFORMANCE, VALUES, LEARNING, REPLAY = "Performance", "Value health", "Learning signal", "Replay"
ACTING, SPEED, FROZEN = "Acting", "Speed and machine", "Frozen policy"
INTERVAL = "Evaluation score with 95 % interval"  # drawn as a band: value, low, high
GAP = "Gap between training seeds and unseen ones"
START = "Value at the start, and what came"
ACTION_SHARES = "rollout/action_share"  # stands for one tag per action, see `action_tags`
SIZE, QUICKNESS, KEPT = "Size", "Time of a decision", "Kept of the live policy"

TAGS: dict[str, Tag] = {
    "rollout/ep_rew_mean": Tag(PERFORMANCE, "Training score", "score", "Mean raw score of the last 100 episodes."),
    "eval/iqm": Tag(PERFORMANCE, "Evaluation score, middle half", "score", "Mean of the middle half of its scores."),
    "eval/mean_reward": Tag(PERFORMANCE, INTERVAL, "score", "Mean raw score of an evaluation on separate games."),
    "eval/ci_low": Tag(PERFORMANCE, INTERVAL, "score", "Lower end of the bootstrap 95 % interval of that mean."),
    "eval/ci_high": Tag(PERFORMANCE, INTERVAL, "score", "Upper end of the bootstrap 95 % interval of that mean."),
    "eval/train_mean_reward": Tag(PERFORMANCE, GAP, "score", "Mean score of as many episodes from the training seeds."),
    "eval/gap": Tag(PERFORMANCE, GAP, "score", "That mean minus the one on unseen seeds (with game.seeds)."),
    "rollout/ep_len_mean": Tag(PERFORMANCE, "Training episode length", "steps", "Mean of the last 100 episodes."),
    "eval/mean_ep_length": Tag(PERFORMANCE, "Evaluation episode length", "steps", "Mean length of its episodes."),
    "rollout/success_rate": Tag(PERFORMANCE, "Training success", "share", "Of the last 100 episodes."),
    "eval/success_rate": Tag(PERFORMANCE, "Evaluation success", "share", "Share of its episodes that succeeded."),
    "q/start_value": Tag(VALUES, START, "discounted reward", "Value of the first action in the evaluation's episodes."),
    "q/start_return": Tag(VALUES, START, "discounted reward", "What these episodes brought, clipped and discounted."),
    "q/overestimation": Tag(VALUES, "Overestimation", "discounted reward", "The value at the start minus what came."),
    "q/mean": Tag(VALUES, "Q-values", "discounted reward", "Mean in the last update of each step of the games."),
    "q/max": Tag(VALUES, "Q-values", "discounted reward", "Largest in the last update of each step of the games."),
    "q/action_gap": Tag(VALUES, "Action gap", "discounted reward", "Best value minus second best, mean of 256 states."),
    "train/td_error_abs": Tag(VALUES, "TD error", "discounted reward", "Mean size in the last update of each step."),
    "train/td_error_p95": Tag(VALUES, "Large TD errors", "discounted reward", "Size that 95 % of them stay below."),
    "train/loss": Tag(VALUES, "Loss", "1", "Mean over the last update of each step of the games."),
    "train/actor_loss": Tag(VALUES, "Losses by part", "1", "Loss of the policy (SAC, TD3, TQC)."),
    "train/critic_loss": Tag(VALUES, "Losses by part", "1", "Loss of the Q-networks (SAC, TD3, TQC)."),
    "train/ent_coef_loss": Tag(VALUES, "Losses by part", "1", "Loss of the entropy coefficient (SAC, TQC)."),
    "train/policy_loss": Tag(VALUES, "Losses by part", "1", "Loss of the policy (A2C)."),
    "train/policy_gradient_loss": Tag(VALUES, "Losses by part", "1", "Clipped loss of the policy (PPO)."),
    "train/value_loss": Tag(VALUES, "Losses by part", "1", "Loss of the value function (PPO, A2C)."),
    "train/entropy_loss": Tag(VALUES, "Losses by part", "1", "Negative entropy of the policy (PPO, A2C)."),
    "train/explained_variance": Tag(VALUES, "Explained variance", "share", "Variance of the returns explained by V."),
    "train/grad_norm": Tag(LEARNING, "Gradient norm", "1", "Mean before clipping, in the last update of each step."),
    "train/grad_clip_fraction": Tag(LEARNING, "Clipped gradients", "share", "Share of updates whose gradient was cut."),
    "train/update_ratio": Tag(LEARNING, "Weight movement", "share / 100 updates", "Distance the weights moved / norm."),
    "policy/churn": Tag(LEARNING, "Policy churn", "share / 100 updates", "Of 256 states, whose best action changed."),
    "net/dormant_frac": Tag(LEARNING, "Dormant units", "share", "Units at most 0.025 as active as their layer's mean."),
    "net/srank": Tag(LEARNING, "Effective rank", "dimensions", "Singular values that make 99 % of the last features."),
    "faults/non_finite_updates": Tag(LEARNING, "Skipped updates", "updates", "Of this run: not finite, so left out."),
    "train/learning_rate": Tag(LEARNING, "Learning rate", "1", "Step size of the optimizer."),
    "train/approx_kl": Tag(LEARNING, "Policy change", "nat", "Estimated divergence from the policy that acted (PPO)."),
    "train/clip_fraction": Tag(LEARNING, "Clipping", "share", "Share of the policy ratios that were clipped (PPO)."),
    "train/clip_range": Tag(LEARNING, "Clipping", "share", "Width at which policy ratios are clipped (PPO)."),
    "train/std": Tag(LEARNING, "Policy spread", "action", "Standard deviation of a Gaussian policy (PPO, A2C, SAC)."),
    "train/ent_coef": Tag(LEARNING, "Entropy coefficient", "1", "Weight of the entropy in the objective (SAC, TQC)."),
    "replay/size": Tag(REPLAY, "Size", "transitions", "Transitions in replay."),
    "replay/age_mean": Tag(REPLAY, "Age", "steps", "Mean age of the sampled transitions in environment steps."),
    "replay/age_p95": Tag(REPLAY, "Age", "steps", "Age that 95 % of the sampled transitions stay below."),
    "replay/priority_mean": Tag(REPLAY, "Priorities", "1", "Mean priority of the transitions in replay."),
    "replay/priority_max": Tag(REPLAY, "Priorities", "1", "Largest priority in replay."),
    "replay/priority_p99": Tag(REPLAY, "Priorities", "1", "Priority that 99 % of the transitions stay below."),
    "replay/samples_per_insert": Tag(REPLAY, "Samples per insert", "1", "Transitions sampled per environment step."),
    "faults/non_finite_steps": Tag(REPLAY, "Steps left out", "steps", "Of this run: a number in them was not finite."),
    "rollout/exploration_rate": Tag(ACTING, "Exploration", "probability", "Probability of a random action (epsilon)."),
    ACTION_SHARES: Tag(ACTING, "Actions", "share", "Share of the steps in which each action was taken."),
    "rollout/action_entropy": Tag(ACTING, "Spread over the actions", "share", "Entropy of these shares / the largest."),
    "rollout/policy_lag": Tag(ACTING, "Policy lag", "updates", "Updates made while a chosen action was on its way."),
    "time/act_latency_p50": Tag(ACTING, "Decision latency", "ms", "Time to choose the actions of one step, median."),
    "time/act_latency_p95": Tag(ACTING, "Decision latency", "ms", "Time to choose the actions, 95th percentile."),
    "time/act_latency_p99": Tag(ACTING, "Decision latency", "ms", "Time to choose the actions, 99th percentile."),
    "realtime/acting_ms_p99": Tag(ACTING, "Real time", "ms", "From when a frame was due to its action, 99 %."),
    "realtime/lateness_ms_p99": Tag(ACTING, "Real time", "ms", "How late a step of the game was taken, 99 %."),
    "realtime/missed": Tag(ACTING, "Missed deadlines", "deadlines", "Of this run: the last action was played again."),
    "realtime/deadlines": Tag(ACTING, "Deadlines", "deadlines", "Of this run, those that were kept included."),
    "realtime/stops": Tag(ACTING, "Stops of the clock", "stops", "Evaluations, checkpoints, first slices, suspends."),
    "time/steps_per_s": Tag(SPEED, "Steps per second", "steps/s", "Environment steps per second since the last point."),
    "time/fps": Tag(SPEED, "Steps per second", "steps/s", "Environment steps per second since the start or resume."),
    "time/updates_per_s": Tag(SPEED, "Updates per second", "updates/s", "Gradient updates per second, likewise."),
    "time/share_acting": Tag(SPEED, "Share of time", "share", "Part of the time spent choosing actions."),
    "time/share_simulating": Tag(SPEED, "Share of time", "share", "Part of the time spent waiting for the games."),
    "time/share_learning": Tag(SPEED, "Share of time", "share", "Part of the time spent launching updates."),
    "time/share_storing": Tag(SPEED, "Share of time", "share", "Part of the time spent appending to replay."),
    "time/share_telemetry": Tag(SPEED, "Share of time", "share", "Part of the time spent on this dashboard."),
    "time/share_other": Tag(SPEED, "Share of time", "share", "Part of the time spent on evaluations and checkpoints."),
    "faults/game_restarts": Tag(SPEED, "Replaced games", "games", "Of this run: they failed, and fresh ones play on."),
    "machine/host_memory_gib": Tag(SPEED, "Memory", "GiB", "Resident memory of the process, without workers."),
    "machine/gpu_memory_gib": Tag(SPEED, "Memory", "GiB", "GPU memory that torch holds for this process."),
    "machine/gpu_utilisation": Tag(SPEED, "GPU utilisation", "share", "Time in which the GPU did anything at all."),
    "frozen/weights_kib": Tag(FROZEN, SIZE, "KiB", "Weights of the frozen policy."),
    "frozen/live_weights_kib": Tag(FROZEN, SIZE, "KiB", "Weights of the live policy it was made from, in 32 bits."),
    "frozen/latency_p50": Tag(FROZEN, QUICKNESS, "us", "One decision on one thread of this machine, median."),
    "frozen/latency_p99": Tag(FROZEN, QUICKNESS, "us", "One decision on one thread of this machine, 99th percentile."),
    "frozen/live_latency_p50": Tag(FROZEN, QUICKNESS, "us", "The same by the live policy in torch, median."),
    "frozen/agreement": Tag(FROZEN, "Same choice", "share", "Share of unseen states with the live policy's choice."),
    "frozen/score": Tag(FROZEN, KEPT, "score", "Mean score of the frozen policy in paired episodes."),
    "frozen/live_score": Tag(FROZEN, KEPT, "score", "Mean score of the live policy in the same episodes."),
    "frozen/score_gap": Tag(FROZEN, "Score gap", "score", "Frozen minus live, mean of the paired episodes."),
}
IMAGES = {
    "play/greedy_episode": "The greedy policy at play: the beginning of an episode, as an animation.",
    "play/saliency": "One picture of it, and in red the pixels on which the chosen action's value hangs.",
}


def action_tags(names: Sequence[str]) -> list[str]:
    """Return a tag for the share of every action, as rollout/action_share/1-fire-left-engine."""
    plain = [re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-") for name in names]
    return [
        f"{ACTION_SHARES}/{number}" + (f"-{name}" if name and name != str(number) else "")
        for number, name in enumerate(plain)
    ]


def in_table(name: str) -> str | None:
    """Return under what a tag stands in the table, None when it does not."""
    family = name.rpartition("/")[0]
    return name if name in TAGS else family if family == ACTION_SHARES else None


def layout(written: Collection[str]) -> dict[str, dict[str, list[Any]]]:
    """Return TensorBoard's custom-scalars layout of the charts of which any tag in the table is `written`.

    So no chart is empty; and a chart names all its tags, so that the layouts of several runs are one when TensorBoard
    lays them over each other.
    """
    charts: dict[str, dict[str, list[str]]] = {}
    for name, tag in TAGS.items():
        charts.setdefault(tag.section, {}).setdefault(tag.title, []).append(name)
    shown = {
        section: {
            title: ["Margin", names]  # value, low, high
            if TAGS[names[0]].chart == INTERVAL
            else ["Multiline", [_pattern(name) for name in names]]
            for title, names in within.items()
            if any(name in written for name in names)
        }
        for section, within in charts.items()
    }
    return {section: within for section, within in shown.items() if within}


def _pattern(name: str) -> str:
    """What matches a tag of the table from its start, and no other."""
    return f"{name}/" if name == ACTION_SHARES else f"{name}$"


def table() -> str:
    """Return all tags with section, unit and meaning as a Markdown table."""
    rows = [f"| {tag.section} | `{name}` | {tag.unit} | {tag.meaning} |" for name, tag in TAGS.items()]
    rows += [f"| Images | `{name}` | picture | {meaning} |" for name, meaning in IMAGES.items()]
    return "\n".join(["| section | tag | unit | meaning |", "|---|---|---|---|", *rows])
