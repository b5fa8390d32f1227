"""The algorithm as mathematics: tokens, advantages, losses, strategies, and the plan that joins them."""
