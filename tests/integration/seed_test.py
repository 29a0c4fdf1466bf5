"""One seed fixes everything but two things: the noise of privacy, and the cohorts that are drawn under it."""

import numpy
import pytest
from federation import NOISE, journal, last_version, tensor_bytes

POISSON = '[selector]\nuse = "poisson"\nrate = 0.7\n'
FAINT = NOISE.replace("noise_multiplier = 2.0", "noise_multiplier = 1e-6")  # the noise shows in the last bits alone


def cohorts(run_dir):
    return [[node["node"] for node in record["plan"]["cohort"]] for record in journal(run_dir) if record["type"] == "opened"]


def numbers(program, version):
    return numpy.frombuffer(tensor_bytes(program, version)[1], dtype=numpy.float32)


def test_cohorts_under_noise_are_drawn_anew_in_every_run(federation):
    """Amplification by sampling counts on it: who knows the seed must not know who took part."""
    fed = federation(rounds=10, privacy=NOISE, extra=POISSON)
    for name in ("one", "other"):
        fed.run(name, config=fed.simulation)
    assert len(cohorts(fed.run_dir("one"))) == len(cohorts(fed.run_dir("other"))) == 10
    assert cohorts(fed.run_dir("one")) != cohorts(fed.run_dir("other"))  # equal by chance: once in 10 million


def test_cohorts_without_noise_follow_the_seed(federation):
    fed = federation(rounds=10, extra=POISSON)
    for name, seed in (("one", 5), ("same", 5), ("other", 6)):
        fed.run(name, "--set", f"run.seed={seed}", config=fed.simulation)
    assert cohorts(fed.run_dir("one")) == cohorts(fed.run_dir("same"))
    assert cohorts(fed.run_dir("one")) != cohorts(fed.run_dir("other"))


def test_the_noise_differs_between_two_runs_of_one_seed_and_nothing_else_does(federation, hansa):
    fed = federation(rounds=1, privacy=FAINT)
    keep = ("--set", "run.keep_versions=10")
    for name, seed in (("one", 5), ("other", 5), ("reseeded", 6)):
        fed.run(name, *keep, "--set", f"run.seed={seed}", config=fed.simulation)
    first, last = ([fed.run_dir(name) / "versions" / f"epoch-00000{epoch}.hansa" for name in ("one", "other", "reseeded")]
                   for epoch in (0, 1))
    assert numpy.array_equal(numbers(hansa.program, first[0]), numbers(hansa.program, first[1]))
    one, other, reseeded = (numbers(hansa.program, version) for version in last)
    learnt = numpy.abs(one - numbers(hansa.program, first[0])).max()
    assert 0 < numpy.abs(one - other).max() < 1e-4 * learnt  # the data's order too was the same
    assert numpy.abs(one - reseeded).max() > 0.1 * learnt


def test_strong_noise_is_drawn_anew_in_every_run(federation, hansa):
    fed = federation(rounds=1, privacy=NOISE)
    for name in ("one", "other"):
        fed.run(name, config=fed.simulation)
    one, other = (numbers(hansa.program, last_version(fed.run_dir(name))) for name in ("one", "other"))
    difference = (one - other)[(one != 0) | (other != 0)]  # without the padding between tensors
    added = 2.0 * 0.5 / 3  # noise multiplier times clipping norm, over the planned cohort
    assert numpy.std(difference) == pytest.approx(2 ** 0.5 * added, rel=0.1)
