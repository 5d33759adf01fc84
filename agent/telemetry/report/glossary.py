"""The words of a report, each explained in a sentence or two to somebody who has never seen one."""

WORDS = {
    "Score": "The game's own points in one whole episode.",
    "Step, frame": (
        "A step is one decision of the agent; a frame is one picture of the game. Some games hold a decision for "
        "several frames."
    ),
    "Seed": "The number from which all chance of a run follows. Runs that differ in nothing else show what is luck.",
    "IQM": (
        "Interquartile mean: the mean of the middle half, without the luckiest and the unluckiest quarter. Of fewer "
        "than four values it is their mean."
    ),
    "95 % interval": (
        "Bootstrap over seeds: where the IQM would lie in 95 of 100 repetitions, as far as these seeds can tell."
    ),
    "Probability of improvement": (
        "The chance that a run of one setting scores higher than a run of another. 50 % means no difference."
    ),
    "Random play": "What somebody scores who presses buttons at random, measured for this report in 20 episodes.",
    "Counts as solved": "The score that Gymnasium, the library of games, calls a solution. Most games have none.",
}
