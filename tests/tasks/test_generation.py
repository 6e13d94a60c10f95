"""Fréchet distance, precision and recall against closed forms; the loss against its definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from research.catalogue import ConfigError
from research.tasks import generation


def normal(seed, size, rank=None):
    """Mean and covariance of some normal distribution."""
    rng = np.random.default_rng(seed)
    root = rng.standard_normal((size, size if rank is None else rank))
    return rng.standard_normal(size), root @ root.T / size


def blob(seed, n, centre=0.0, size=6):
    return centre + np.random.default_rng(seed).standard_normal((n, size))


class TestFrechet:
    @given(st.integers(0, 1000), st.integers(1, 12))
    def test_is_the_papers_formula(self, seed, size):
        (mean, cov), (other_mean, other_cov) = normal(seed, size), normal(seed + 1, size)
        root = scipy.linalg.sqrtm(cov @ other_cov)
        expected = np.sum((mean - other_mean) ** 2) + np.trace(cov + other_cov - 2 * root.real)
        found = generation.frechet(mean, cov, other_mean, other_cov)
        assert found == pytest.approx(expected, rel=1e-6, abs=1e-6)
        assert found == pytest.approx(generation.frechet(other_mean, other_cov, mean, cov), rel=1e-9, abs=1e-9)

    def test_of_independent_features_is_a_sum_over_them(self):
        deviations, others = np.array([1.0, 0.5, 2.0]), np.array([0.25, 0.5, 3.0])
        found = generation.frechet(np.zeros(3), np.diag(deviations**2), np.array([1.0, 2.0, 2.0]), np.diag(others**2))
        assert found == pytest.approx(9 + np.sum((deviations - others) ** 2), abs=1e-12)

    def test_of_a_distribution_to_itself_is_0_though_its_covariance_is_singular(self):
        mean, covariance = normal(3, 10, rank=4)
        assert generation.frechet(mean, covariance, mean, covariance) == pytest.approx(0, abs=1e-9)

    def test_of_samples_nears_that_of_their_distributions(self):
        (mean, cov), (other_mean, other_cov) = normal(0, 4), normal(1, 4)
        rng = np.random.default_rng(2)
        samples = [rng.multivariate_normal(m, c, 200_000) for m, c in ((mean, cov), (other_mean, other_cov))]
        found = generation.frechet(*generation.moments(samples[0]), *generation.moments(samples[1]))
        assert found == pytest.approx(generation.frechet(mean, cov, other_mean, other_cov), rel=0.02)

    def test_of_a_generator_that_broke_is_infinite(self):
        mean, covariance = normal(0, 3)
        assert generation.frechet(mean, covariance, mean * np.nan, covariance) == np.inf


class TestPrecisionAndRecall:
    def test_of_a_set_with_itself_are_1(self):
        assert generation.precision_and_recall(blob(0, 50), blob(0, 50)) == (1, 1)

    def test_of_sets_far_apart_are_0(self):
        assert generation.precision_and_recall(blob(0, 50), blob(1, 60, centre=100)) == (0, 0)

    def test_a_generator_that_repeats_one_real_example_is_precise_and_recalls_next_to_nothing(self):
        real = blob(0, 200)
        precision, recall = generation.precision_and_recall(real, np.tile(real[:1], (200, 1)))
        assert (precision, recall) == (1, 1 / 200)

    def test_a_generator_that_covers_more_than_the_data_recalls_all_and_is_not_precise(self):
        real, elsewhere = blob(0, 100), blob(1, 100, centre=100)
        assert generation.precision_and_recall(real, np.concatenate([real, elsewhere])) == (0.5, 1)

    @given(st.integers(0, 1000), st.integers(4, 30), st.integers(4, 30), st.integers(1, 3))
    def test_are_the_papers_definition(self, seed, n, m, k):
        real, generated = blob(seed, n, size=3), blob(seed + 1, m, centre=0.5, size=3)

        def covered(points, members):
            radii = np.sort(cdist(members, members))[:, k]
            return np.mean([any(np.linalg.norm(p - q) <= r for q, r in zip(members, radii, strict=True)) for p in points])

        expected = covered(generated, real), covered(real, generated)
        assert generation.precision_and_recall(real, generated, k) == pytest.approx(expected)

    def test_do_not_depend_on_how_distances_are_cut_up(self, monkeypatch):
        real, generated = blob(0, 100), blob(1, 90, centre=0.5)
        whole = generation.precision_and_recall(real, generated)
        assert min(whole) > 0 and max(whole) < 1
        monkeypatch.setattr(generation, '_ROWS', 7)
        assert generation.precision_and_recall(real, generated) == whole

    def test_do_not_depend_on_where_the_features_lie(self):
        real, generated = blob(0, 100), blob(1, 90, centre=0.5)
        near = generation.precision_and_recall(real, generated)
        assert generation.precision_and_recall(real + 1e6, generated + 1e6) == near
        with_one_far_off = generation.precision_and_recall(real, np.append(generated, np.full((1, 6), 1e7), 0))
        assert with_one_far_off == (near[0] * 90 / 91, near[1])

    def test_too_few_examples_are_refused(self):
        with pytest.raises(ConfigError, match='3 examples have no 3 neighbours'):
            generation.precision_and_recall(blob(0, 3), blob(1, 10))


class TestLosses:
    REAL, GENERATED = np.array([2.0, -0.5], np.float32), np.array([0.3, -4.0], np.float32)

    @pytest.mark.parametrize('smoothing', [0.0, 0.1])
    def test_discriminator(self, smoothing):
        """-E log D(x) - E log(1 - D(G(z))), and the first term's target moved (Goodfellow et al. 2014, equation 1)."""
        task = generation.create('non_saturating', smoothing, {})
        real, generated = (1 / (1 + np.exp(-logits.astype(np.float64))) for logits in (self.REAL, self.GENERATED))
        expected = -(1 - smoothing) * np.log(real) - smoothing * np.log(1 - real) - np.log(1 - generated)
        np.testing.assert_allclose(task.discriminator(self.REAL, self.GENERATED), expected, rtol=1e-5)

    def test_generator_is_pushed_hardest_where_it_is_caught(self):
        task = generation.create('non_saturating', 0.0, {})
        chance = 1 / (1 + np.exp(-self.GENERATED.astype(np.float64)))
        np.testing.assert_allclose(task.generator(self.GENERATED), -np.log(chance), rtol=1e-5)
        slope = jax.vmap(jax.grad(lambda logit: task.generator(logit[None])[0]))(jnp.array([-20.0, 0.0, 20.0]))
        np.testing.assert_allclose(slope, [-1, -0.5, 0], atol=1e-6)

    @pytest.mark.parametrize('changed', [{'label_smoothing': 1.0}, {'neighbours': 0}, {'loss': 'non_saturated'}])
    def test_what_makes_no_sense_is_refused(self, changed):
        with pytest.raises(ConfigError):
            generation.create(**{'loss': 'non_saturating', 'label_smoothing': 0.0, 'facts': {}, **changed})


def test_metrics_are_sums_over_count():
    total = {'loss': 30.0, 'discriminator_loss': 10.0, 'caught': 15.0, 'count': 20.0, 'steps': 4.0, 'clip/steps': 2.0}
    expected = {'loss': 1.5, 'discriminator_loss': 0.5, 'discriminator_accuracy': 0.75}
    assert generation.metrics(total) == expected
    assert generation.metrics({**total, 'judge_correct': 19.0}) == {**expected, 'judge_accuracy': 0.95}


def test_the_judge_compares_features():
    task = generation.create('non_saturating', 0.0, {})
    real, generated = blob(0, 80).astype(np.float32), blob(1, 80, centre=1).astype(np.float32)
    judged = task.judge({'real': real, 'generated': generated})
    assert judged['frechet'] == generation.frechet(*generation.moments(real), *generation.moments(generated)) > 6
    assert (judged['precision'], judged['recall']) == generation.precision_and_recall(real, generated)
