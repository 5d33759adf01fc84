"""Features extractors for what SB3's own cannot take."""

import numpy as np
import torch
from gymnasium import spaces

from agent.nets.torsos import MinAtar
from agent.sb3.extractors import SmallGrid


def test_small_grid_is_the_minatar_torso():
    """The extractor gives the features of our MinAtar torso, as wide as it says."""
    extractor = SmallGrid(spaces.Box(0, 1, (6, 10, 10), np.uint8), features_dim=32)
    torso = MinAtar((6, 10, 10), (32,))
    torso.load_state_dict(extractor.torso.state_dict())
    grids = torch.randint(2, (7, 6, 10, 10), generator=torch.Generator().manual_seed(0)).float()
    features = extractor(grids)
    assert features.shape == (7, 32) and extractor.features_dim == 32
    assert torch.equal(features, torso(grids))
