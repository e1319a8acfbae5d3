"""Bench: 10,000 globs against 10,000 paths through the index, and some of them one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from random import Random
from time import perf_counter

from domain.globs import GlobIndex
from domain.ulid import ulid_text
from tests.domain.test_globs import takes

MANY = 10_000
FEW = 300


def main() -> None:
    globs, paths = some_globs(Random(1)), some_paths(Random(2))
    indexes: list[GlobIndex] = []
    building = seconds(lambda: indexes.append(GlobIndex(zip(globs, range(MANY), strict=True))))
    index = indexes[0]
    first = seconds(lambda: [index.owners(path) for path in paths])
    second = seconds(lambda: [index.owners(path) for path in paths])
    few_globs, few_paths = Random(3).sample(globs, FEW), Random(4).sample(paths, FEW)
    naive = seconds(lambda: [takes(glob, path) for path in few_paths for glob in few_globs])
    through_index, one_by_one = (building + first) / MANY**2, naive / FEW**2
    print(f"building {building:.3f} s, all paths {first:.3f} s, all paths again {second:.3f} s")
    print(f"{sum(len(index.owners(path)) for path in paths)} matches")
    print(f"a pair: {through_index * 1e9:.1f} ns through the index, {one_by_one * 1e9:.0f} ns by itself")
    print(f"globs: {building + first:.3f} s for {MANY} x {MANY}, {one_by_one / through_index:.0f} times as fast")


def seconds(run: Callable[[], object]) -> float:
    started = perf_counter()
    run()
    return perf_counter() - started


def some_globs(random: Random) -> Sequence[str]:
    """Half take one certificate each, a few are general, the others narrow."""
    one_each = [f"pki/certificates/cert_{certificate}" for certificate in certificates()]
    general = ["pki/certificates/*", "pki/**", "pki/acme/orders/*", "secrets/app-17/**", "**/db-?/password"]
    narrow = [
        glob
        for number in range(MANY // 8)
        for glob in (
            f"pki/certificates/cert_{ulid(random)[:7]}*",
            f"secrets/app-{number}/**",
            f"secrets/app-{number}/*/db-?",
            f"**/db-{number}/password",
        )
    ]
    return [*one_each, *general, *narrow][:MANY]


def some_paths(random: Random) -> Sequence[str]:
    """Half are certificates that a glob names, the others are new."""
    return [
        *(f"pki/certificates/cert_{certificate}" for certificate in certificates()),
        *(f"pki/certificates/cert_{ulid(random)}" for _ in range(MANY // 8)),
        *(f"pki/acme/orders/acme_order_{ulid(random)}" for _ in range(MANY // 8)),
        *(f"secrets/app-{random.randrange(MANY)}/db-{random.randrange(20)}/password" for _ in range(MANY // 4)),
    ]


def certificates() -> Sequence[str]:
    random = Random(5)
    return [ulid(random) for _ in range(MANY // 2)]


def ulid(random: Random) -> str:
    """Of some time in a year, so that they begin alike."""
    at = datetime.fromtimestamp(1_760_000_000 + random.randrange(31_536_000), UTC)
    return ulid_text(at, random.randbytes(10))


if __name__ == "__main__":
    main()
