"""The claims, each a program: it sets up what it needs, prints its figures, and says at the end whether the claim holds.

`scripts/prove NAME` runs them; the tests run them short."""
