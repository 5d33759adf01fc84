"""Fractions and their embedding against the formulas."""

from __future__ import annotations

import math

import pytest
import torch

from agent.nets.fractions import CosineEmbedding, midpoints


@pytest.mark.parametrize("count", [1, 2, 8, 200])
def test_midpoints(count: int) -> None:
    """The fixed fractions are the middles of `count` equal parts of 0 .. 1."""
    assert midpoints(count).tolist() == pytest.approx([(i - 0.5) / count for i in range(1, count + 1)])
    assert midpoints(count).dtype == torch.float32


def test_cosine_embedding() -> None:
    """e_i(t) = ReLU(sum over k of W_ik cos(pi k t) + b_i), k from 0."""
    embedding, fractions = CosineEmbedding(features=6, cosines=5), torch.tensor([[0.0, 0.3, 1.0], [0.5, 0.77, 0.01]])
    with torch.no_grad():
        embedding.linear.weight.normal_(generator=torch.Generator().manual_seed(0))
    w, b = embedding.linear.weight.tolist(), embedding.linear.bias.tolist()
    expected = torch.tensor(
        [
            [
                [max(0.0, sum(w[i][k] * math.cos(math.pi * k * t) for k in range(5)) + b[i]) for i in range(6)]
                for t in row
            ]
            for row in fractions.tolist()
        ]
    )
    torch.testing.assert_close(embedding(fractions), expected)
    torch.testing.assert_close(embedding(fractions[1]), expected[1])
    assert (expected > 0).any() and (expected == 0).any()


def test_only_weights_are_state() -> None:
    """The frequencies follow from the shape and are not stored."""
    assert set(CosineEmbedding(6, 5).state_dict()) == {"linear.weight", "linear.bias"}
