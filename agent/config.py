"""The settings of a run, typed and frozen, each with its unit and source. The only defaults in the project.

A field's docstring is its documentation: the command line shows it. YAML files in `configs/` and command-line flags hold
differences from what stands here.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[int, Field(ge=1)]
NonNegative = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
PositiveFloat = Annotated[float, Field(gt=0.0)]

LEAST_COMPRESSED = 1_000  # bytes of a frame that replay compresses; smaller ones cost time and save little


class Section(BaseModel):
    """Base of every group of settings: frozen, unknown keys are errors, attribute docstrings become help."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class AtariSettings(Section):
    """How an Atari game is played (only for atari/*). Defaults: Machado et al. 2018, as in Dopamine."""

    sticky_actions: Fraction = 0.25
    """Probability that a frame repeats the previous action (Machado et al. 2018)."""
    frame_skip: Positive = 4
    """Emulator frames per environment step; the last two are max-pooled."""
    stack: Positive = 4
    """Frames per observation; frames before the start of an episode are zero."""
    noop_max: NonNegative = 0
    """Most no-op steps at the start of an episode (0: none, as in Dopamine)."""
    fire_reset: bool = False
    """Press FIRE at the start of an episode in games that wait for it."""
    life_loss_ends: bool = False
    """Treat a lost life as the end of an episode for learning. Scores always count whole games."""
    full_action_space: bool = False
    """All 18 joystick actions instead of the game's own."""
    max_frames: Positive = 108_000
    """Emulator frames after which an episode is truncated (30 minutes of play)."""


class MinAtarSettings(Section):
    """How a MinAtar game is played (only for minatar/*). Defaults: Young and Tian 2019."""

    sticky_actions: Fraction = 0.1
    """Probability that a step repeats the previous action."""
    ramping: bool = True
    """Let the difficulty grow during an episode."""
    minimal_actions: bool = False
    """Only the actions that do something in this game instead of the common six."""
    max_steps: Positive = 27_000
    """Environment steps after which an episode is truncated; MinAtar itself has no limit in most games."""


class GameSettings(Section):
    """Which game, how many copies, and how they run."""

    num_games: Positive = 8
    """Copies of the game that play side by side."""
    vectorize: Literal["auto", "inline", "workers"] = "auto"
    """Run the copies in this process, in worker processes, or as suits the game. Atari has its own C++ threads instead
    of inline. Only workers survive a game that hangs or ends its process: that one is replaced, the others play on."""
    deadline_s: PositiveFloat = 8.0
    """Seconds in which a game in a worker process must answer, or it is replaced. Raise it for games whose slowest step
    or reset takes longer."""
    seeds: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Start training episodes from this many seeds only, over and over; evaluation still plays unseen ones, and the gap
    between both is logged. None: every episode is new. Not for atari/*."""
    threads: NonNegative = 0
    """Threads for games with a C++ vector form (0: as many as there are cores, at most one per game)."""
    realtime: PositiveFloat | None = None
    """Play one game by the wall clock, so many decisions a second, and learn in the time that is left: at most what
    samples_per_insert asks, so set that high to use all of it. Evaluations and checkpoints stop the clock. None: no
    clock, as fast as it goes."""
    atari: AtariSettings = AtariSettings()
    """Only for atari/* games."""
    minatar: MinAtarSettings = MinAtarSettings()
    """Only for minatar/* games."""


class ActorSettings(Section):
    """How the agent explores while it plays."""

    epsilon_start: Fraction = 1.0
    """Probability of a random action at the first step."""
    epsilon_end: Fraction = 0.05
    """Probability of a random action after `epsilon_steps`."""
    epsilon_steps: Positive = 10_000
    """Environment steps over which epsilon falls: all the way when linear, by a factor e when exponential."""
    epsilon_schedule: Literal["linear", "exponential"] = "linear"
    """linear: epsilon_end is reached after epsilon_steps. exponential: it is approached (Clark et al. 2024)."""
    epsilon_ladder: Annotated[float, Field(ge=0.0, le=100.0)] = 0.0
    """Spread over the games: game i of N explores with epsilon^(1 + ladder * i / (N - 1)) (Horgan et al. 2018: 7).
    0: all alike."""
    epsilon_off_after: NonNegative | None = None
    """Environment steps after which epsilon is 0 and noisy layers alone explore, which it needs. None: never."""


class ReplaySettings(Section):
    """What the agent remembers and how it is sampled."""

    capacity: Positive = 100_000
    """Transitions kept; the oldest are overwritten."""
    n_step: Positive = 1
    """Rewards summed before bootstrapping; windows are cut at the end of an episode (Sutton 1988)."""
    n_step_end: Positive | None = None
    """n at the last step of the run, at most n_step, reached linearly and rounded. None: constant."""
    priority_exponent: Fraction = 0.0
    """Alpha of prioritized replay (Schaul et al. 2016); 0 samples uniformly."""
    importance_exponent: Fraction = 0.4
    """Beta of the importance weights at the first step; unused when sampling is uniform. BTR: alpha, constant."""
    importance_exponent_end: Fraction = 1.0
    """Beta at the last step of the run."""
    reward_clip: PositiveFloat | None = None
    """Clip rewards to plus or minus this for learning only; scores are never clipped. None: rewards as they are."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where replay lies. auto: on the GPU when the agent is there and it fits, else in host memory."""
    compression: Literal["none", "lz4"] = "none"
    """Compress the frames of games with pictures, in host memory only: a third down to a twentieth of it on Atari. The
    batches are exactly the same."""


class NetworkSettings(Section):
    """The Q-network."""

    torso: Literal["auto", "mlp", "minatar", "nature", "impala"] = "auto"
    """What turns observations into features. auto: nature for pictures of at least 36x36, minatar for small grids,
    else mlp. impala: the residual network of Espeholt et al. 2018, for pictures."""
    width: Positive = 1
    """Multiplier of impala's channels 16, 32, 32 (2 in BTR, 4 in BBF)."""
    max_pool: Positive | None = 6
    """Side to which impala's last feature maps are max-pooled (Clark et al. 2024). None: as large as they come."""
    spectral_norm: bool = False
    """Divide the convolutions in impala's residual blocks by their largest singular value (Gogianu et al. 2021)."""
    layer_norm: bool = False
    """Normalise what enters each hidden activation of the dense layers, and the stem of every impala block."""
    hidden: Annotated[tuple[Positive, ...], Field(min_length=1)] = (256, 256)
    """Widths of the fully connected layers, at least one; for torsos with convolutions only those after them."""
    dueling: bool = False
    """Split into a value and an advantage stream (Wang et al. 2016)."""
    noisy: bool = False
    """Linear layers of the head explore by noise in their weights (Fortunato et al. 2018)."""
    noisy_sigma: PositiveFloat = 0.5
    """Noise at the start, before it is divided by the square root of a layer's inputs."""
    distribution: Literal["none", "quantile", "implicit"] = "none"
    """What is learned of the return. none: its mean. quantile: its quantiles at fixed fractions (QR-DQN, Dabney et al.
    2018a). implicit: at any fraction (IQN, Dabney et al. 2018b)."""
    quantiles: Positive = 32
    """Fixed fractions (i - 1/2) / quantiles: those of QR-DQN, and those at which IQN acts."""
    cosines: Positive = 64
    """IQN only: width of the cosine embedding of a fraction."""


class LearnerSettings(Section):
    """How the network is updated."""

    batch_size: Positive = 32
    """Transitions per update."""
    samples_per_insert: PositiveFloat = 8.0
    """Transitions sampled per environment step, whatever the batch size and the number of games (DQN: 32 / 4 = 8)."""
    learning_starts: NonNegative = 1_000
    """Environment steps before the first update. More where replay could not give a whole batch yet."""
    learning_rate: PositiveFloat = 1e-4
    """Adam's step size at the first step."""
    learning_rate_end: Annotated[float, Field(ge=0.0)] | None = None
    """Adam's step size at the last step of the run, reached linearly. None: constant."""
    adam_epsilon: PositiveFloat = 1e-8
    """Adam's denominator offset. Pixels like 1.5e-4 (Dopamine)."""
    max_grad_norm: PositiveFloat = 10.0
    """Gradients are scaled down to this norm."""
    discount: Fraction = 0.99
    """Gamma, per environment step."""
    discount_end: Fraction | None = None
    """Gamma at the last step of the run; 1 - gamma moves geometrically (Schwarzer et al. 2023). None: constant."""
    target_interval: Positive = 250
    """Updates between copies of the network into the target network."""
    average_updates: Positive | None = None
    """Judge and keep as best the running average of the weights over about this many updates (Polyak and
    Juditsky 1992): steadier than the newest weights, with which the agent explores and learns. None: the newest."""
    loss: Literal["huber", "mse"] = "huber"
    """Loss on the TD error of the mean; huber has its corner at 1 (Mnih et al. 2015). Quantiles always take huber."""
    double: bool = True
    """Choose the bootstrap action with the online network (van Hasselt et al. 2016); Munchausen has none to choose."""
    fractions: Positive = 8
    """IQN only: random fractions of the prediction, per transition (64 in IQN, 8 in BTR)."""
    target_fractions: Positive = 8
    """IQN only: random fractions of the target, per transition."""
    execution: Literal["auto", "eager", "compiled", "captured"] = "auto"
    """How updates run: one operation after the other, as one program of torch.compile, or as a CUDA graph; each faster
    form is checked against eager before it is used. auto: captured on a GPU; on a CPU compiled where a long run gains."""
    autocast: Literal["none", "bf16"] = "none"
    """bf16: layers compute in bfloat16 (losses, targets and priorities stay in 32 bits); pays on a GPU."""
    munchausen: Fraction = 0.0
    """Alpha, the share of the policy's own log-probability in the reward (Vieillard et al. 2020: 0.9); 0: off. Its
    temperature and clip assume rewards of about 1."""
    munchausen_temperature: Annotated[float, Field(ge=1e-6)] = 0.03
    """Tau, the entropy temperature, in units of reward."""
    munchausen_clip: Annotated[float, Field(le=0.0)] = -1.0
    """Least value of the scaled log-probability, in units of reward."""
    munchausen_reference: Literal["target", "online"] = "target"
    """Network that gives the log-probability of the action taken: target in the paper; online in BTR, one pass less."""


class PlateauSettings(Section):
    """What happens when evaluations no longer improve."""

    action: Literal["none", "stop", "lower"] = "none"
    """stop: end the run. lower: multiply the learning rate by `factor`, again after every further budget."""
    budget_steps: Positive = 500_000
    """Environment steps without an improvement, at least an evaluation's interval. Improved: an evaluation whose mean
    lies above the 95 % interval of the last one that improved. It counts from where learning starts."""
    factor: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.3
    """What the learning rate is multiplied by."""


class EvaluationSettings(Section):
    """How the agent is judged while it trains and by `icebox eval`: separate games, unseen seeds, raw scores."""

    interval_steps: NonNegative = 10_000
    """Environment steps between evaluations during training (0: none)."""
    episodes: Positive = 20
    """Episodes per evaluation during training."""
    num_games: Positive = 10
    """Copies of the game that evaluate side by side; each plays its own quota of episodes."""
    epsilon: Fraction = 0.0
    """Probability of a random action during evaluation."""
    stop_at_score: float | None = None
    """End the run once the mean of an evaluation reaches this. None: play all steps."""
    plateau: PlateauSettings = PlateauSettings()
    """What happens when evaluations no longer improve."""


class CheckpointSettings(Section):
    """How the run is kept safe."""

    interval_steps: NonNegative = 25_000
    """Environment steps between checkpoints (0: only at the end and when stopped)."""
    keep: Positive = 2
    """Newest checkpoints kept; older ones are removed after a newer one is safe."""


class TelemetrySettings(Section):
    """What is written while the agent trains."""

    interval_s: PositiveFloat = 2.0
    """Least seconds between two flushes of metrics to TensorBoard."""


class Settings(Section):
    """Everything that decides how a run goes; written to `config.yaml` in the run folder."""

    steps: Positive = 100_000
    """Environment steps (agent decisions, over all copies) to train for."""
    seed: NonNegative = 0
    """The one seed; every random generator of the run is derived from it."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the networks live. auto: the GPU when there is one."""
    algo: Literal["icebox", "dqn-sb3", "qrdqn", "ppo", "a2c", "sac", "td3", "tqc"] = "icebox"
    """icebox: our agent. The others are stable-baselines3's and sb3-contrib's own, in the same run folder."""
    threads: NonNegative = 0
    """Threads torch may use for one operation on the CPU (0: chosen for the network's size and this machine)."""
    game: GameSettings = GameSettings()
    actor: ActorSettings = ActorSettings()
    replay: ReplaySettings = ReplaySettings()
    network: NetworkSettings = NetworkSettings()
    learner: LearnerSettings = LearnerSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    checkpoint: CheckpointSettings = CheckpointSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    sb3: dict[str, dict[str, Any]] = {}
    """Constructor arguments of stable-baselines3's algorithms, by algorithm: `{ppo: {n_steps: 1024}}`. In YAML only."""

    @model_validator(mode="after")
    def _check_together(self) -> Settings:
        if self.replay.capacity < self.learner.batch_size:
            raise ValueError(
                f"replay.capacity ({self.replay.capacity}) must be at least learner.batch_size "
                f"({self.learner.batch_size})"
            )
        learner, network, evaluation = self.learner, self.network, self.evaluation
        if self.actor.epsilon_off_after is not None and not network.noisy:
            raise ValueError("actor.epsilon_off_after needs network.noisy: without noise nothing would explore")
        if network.torso != "impala" and (network.spectral_norm or network.width != 1):
            raise ValueError("network.spectral_norm and network.width are for network.torso impala")
        if network.distribution != "none" and learner.loss != "huber":
            raise ValueError("learner.loss must be huber with network.distribution quantile or implicit")
        if not evaluation.interval_steps and evaluation.plateau.action != "none":
            raise ValueError("evaluation.plateau needs an evaluation.interval_steps above 0")
        if evaluation.plateau.action != "none" and evaluation.plateau.budget_steps < evaluation.interval_steps:
            raise ValueError(
                f"evaluation.plateau.budget_steps ({evaluation.plateau.budget_steps}) must be at least "
                f"evaluation.interval_steps ({evaluation.interval_steps})"
            )
        if learner.discount_end is not None and max(learner.discount, learner.discount_end) == 1.0:
            raise ValueError("learner.discount and learner.discount_end must be below 1 when both are given")
        if self.replay.compression != "none" and self.replay.device == "cuda":
            raise ValueError(
                "replay.compression is for replay on the host: set replay.device auto or cpu, or compression none"
            )
        if self.replay.n_step_end is not None and self.replay.n_step_end > self.replay.n_step:
            raise ValueError(
                f"replay.n_step_end ({self.replay.n_step_end}) must be at most replay.n_step ({self.replay.n_step})"
            )
        if self.game.realtime is not None and self.game.num_games != 1:
            raise ValueError(
                f"game.realtime plays one game by the clock: game.num_games must be 1 or left out, got "
                f"{self.game.num_games}"
            )
        if self.game.realtime is not None and self.learner.execution == "captured":
            raise ValueError(
                "game.realtime breaks updates off where time runs out: learner.execution must be auto, compiled or "
                "eager, got captured"
            )
        if self.game.realtime is not None and self.algo != "icebox":
            raise ValueError(f"game.realtime is for algo icebox, not {self.algo}: it learns when it likes")
        if self.replay.capacity < 2 * self.game.num_games:
            raise ValueError(
                f"replay.capacity ({self.replay.capacity}) must be at least 2 * game.num_games "
                f"({2 * self.game.num_games}): the row in which an episode ends holds no transition"
            )
        return self
