"""Random samples of fixed size, at most a share of them positive (arXiv:1504.08083, 2.3)."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxseg.types import Array


def sample(
  key: Array, positive: Array, negative: Array, count: int, most_positive: int
) -> tuple[Array, Array, Array]:
  """Draws `count` places without replacement: up to `most_positive` positives, then negatives.

  Args:
    key: of jax.random.
    positive, negative: bool [n], never both.
    count: of places drawn, at most n.
    most_positive: at most count. Where fewer positives exist, negatives take their places.

  Returns:
    index int32 [count], positives first; is_positive bool [count]; is_valid bool [count], False
    where there was nothing left to draw.
  """
  chance = jax.random.uniform(key, positive.shape)
  luck, places = jax.lax.top_k(jnp.where(positive, chance, -1.0), min(most_positive, len(positive)))
  chosen = jnp.zeros(positive.shape, bool).at[places].set(luck >= 0)
  rank = jnp.where(chosen, 2.0, jnp.where(negative, chance, -1.0))
  rank, index = jax.lax.top_k(rank, count)
  return index.astype(jnp.int32), rank >= 2, rank >= 0
