"""Every number a run shows in TensorBoard: section, chart, unit and meaning. Layout and documentation come from here.

Names are stable-baselines3's where it has one. The step axis is environment steps, over all games.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple


class Tag(NamedTuple):
    """What a tag means and where it is drawn. Tags of one chart share a unit."""

    section: str
    chart: str
    unit: str
    meaning: str


PERFORMANCE, VALUES, LEARNING, REPLAY = "Performance", "Value health", "Learning signal", "Replay"
ACTING, SPEED = "Acting", "Speed and machine"
INTERVAL = "Evaluation score with 95 % interval"  # drawn as a band: value, low, high
GAP = "Gap between training seeds and unseen ones"

TAGS: dict[str, Tag] = {
    "rollout/ep_rew_mean": Tag(PERFORMANCE, "Score", "score", "Mean raw score of the last 100 training episodes."),
    "eval/iqm": Tag(PERFORMANCE, "Score", "score", "Mean of the middle half of the scores of an evaluation."),
    "eval/mean_reward": Tag(PERFORMANCE, INTERVAL, "score", "Mean raw score of an evaluation on separate games."),
    "eval/ci_low": Tag(PERFORMANCE, INTERVAL, "score", "Lower end of the bootstrap 95 % interval of that mean."),
    "eval/ci_high": Tag(PERFORMANCE, INTERVAL, "score", "Upper end of the bootstrap 95 % interval of that mean."),
    "eval/train_mean_reward": Tag(PERFORMANCE, GAP, "score", "Mean score of as many episodes from the training seeds."),
    "eval/gap": Tag(PERFORMANCE, GAP, "score", "That mean minus the one on unseen seeds (with game.seeds)."),
    "rollout/ep_len_mean": Tag(PERFORMANCE, "Episode length", "steps", "Mean length of the last 100 episodes."),
    "eval/mean_ep_length": Tag(PERFORMANCE, "Episode length", "steps", "Mean length of the episodes of an evaluation."),
    "rollout/success_rate": Tag(PERFORMANCE, "Success", "share", "Share of the last 100 episodes that succeeded."),
    "eval/success_rate": Tag(PERFORMANCE, "Success", "share", "Share of evaluation episodes that were a success."),
    "q/mean": Tag(VALUES, "Q-values", "discounted reward", "Mean in the last update of each step of the games."),
    "q/max": Tag(VALUES, "Q-values", "discounted reward", "Largest in the last update of each step of the games."),
    "train/td_error_abs": Tag(VALUES, "TD error", "discounted reward", "Mean size in the last update of each step."),
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
    "train/learning_rate": Tag(LEARNING, "Learning rate", "1", "Step size of the optimizer."),
    "train/approx_kl": Tag(LEARNING, "Policy change", "nat", "Estimated divergence from the policy that acted (PPO)."),
    "train/clip_fraction": Tag(LEARNING, "Clipping", "share", "Share of the policy ratios that were clipped (PPO)."),
    "train/clip_range": Tag(LEARNING, "Clipping", "share", "Width at which policy ratios are clipped (PPO)."),
    "train/std": Tag(LEARNING, "Policy spread", "action", "Standard deviation of a Gaussian policy (PPO, A2C, SAC)."),
    "train/ent_coef": Tag(LEARNING, "Entropy coefficient", "1", "Weight of the entropy in the objective (SAC, TQC)."),
    "replay/size": Tag(REPLAY, "Size", "transitions", "Transitions in replay."),
    "replay/age_mean": Tag(REPLAY, "Age", "steps", "Mean age of the sampled transitions in environment steps."),
    "replay/priority_mean": Tag(REPLAY, "Priorities", "1", "Mean priority of the transitions in replay."),
    "replay/priority_max": Tag(REPLAY, "Priorities", "1", "Largest priority in replay."),
    "replay/samples_per_insert": Tag(REPLAY, "Samples per insert", "1", "Transitions sampled per environment step."),
    "rollout/exploration_rate": Tag(ACTING, "Exploration", "probability", "Probability of a random action (epsilon)."),
    "rollout/policy_lag": Tag(ACTING, "Policy lag", "updates", "Updates made while a chosen action was on its way."),
    "time/act_latency_p50": Tag(ACTING, "Decision latency", "ms", "Time to choose the actions of one step, median."),
    "time/act_latency_p95": Tag(ACTING, "Decision latency", "ms", "Time to choose the actions, 95th percentile."),
    "time/act_latency_p99": Tag(ACTING, "Decision latency", "ms", "Time to choose the actions, 99th percentile."),
    "realtime/acting_ms_p99": Tag(ACTING, "Real time", "ms", "From when a frame was due to its action, 99 %."),
    "realtime/lateness_ms_p99": Tag(ACTING, "Real time", "ms", "How late a step of the game was taken, 99 %."),
    "realtime/missed": Tag(ACTING, "Missed deadlines", "deadlines", "Of this run: the last action was played again."),
    "realtime/stops": Tag(ACTING, "Stops of the clock", "stops", "Evaluations, checkpoints, first slices, suspends."),
    "time/steps_per_s": Tag(SPEED, "Steps per second", "steps/s", "Environment steps per second since the last point."),
    "time/fps": Tag(SPEED, "Steps per second", "steps/s", "Environment steps per second since the start or resume."),
    "time/updates_per_s": Tag(SPEED, "Updates per second", "updates/s", "Gradient updates per second, likewise."),
    "time/share_acting": Tag(SPEED, "Share of time", "share", "Part of the time spent choosing actions."),
    "time/share_simulating": Tag(SPEED, "Share of time", "share", "Part of the time spent waiting for the games."),
    "time/share_learning": Tag(SPEED, "Share of time", "share", "Part of the time spent launching updates."),
    "time/share_storing": Tag(SPEED, "Share of time", "share", "Part of the time spent appending to replay."),
    "time/share_other": Tag(SPEED, "Share of time", "share", "Part of the time spent evaluating, saving, logging."),
    "machine/host_memory_gib": Tag(SPEED, "Host memory", "GiB", "Resident memory of the process, without workers."),
}


def layout(written: Collection[str]) -> dict[str, dict[str, list[Any]]]:
    """Return TensorBoard's custom-scalars layout of those tags in the table that are `written`: no chart is empty."""
    charts: dict[str, dict[str, list[str]]] = {}
    for name, tag in TAGS.items():
        if name in written:
            charts.setdefault(tag.section, {}).setdefault(tag.chart, []).append(name)
    return {
        section: {
            chart: ["Margin", names]  # value, low, high
            if chart == INTERVAL and len(names) == 3
            else ["Multiline", [f"{name}$" for name in names]]  # patterns, matched from the start of a tag
            for chart, names in within.items()
        }
        for section, within in charts.items()
    }


def table() -> str:
    """Return all tags with unit and meaning as a Markdown table."""
    rows = [f"| `{name}` | {tag.unit} | {tag.meaning} |" for name, tag in TAGS.items()]
    return "\n".join(["| tag | unit | meaning |", "|---|---|---|", *rows])
