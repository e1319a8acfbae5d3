"""The benches, each a program that measures and prints its figures. `scripts/bench NAME` runs them."""
