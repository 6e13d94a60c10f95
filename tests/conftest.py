"""Every test runs on 4 host devices, with silent broadcasting refused."""

import os

os.environ['XLA_FLAGS'] = os.environ.get('XLA_FLAGS', '') + ' --xla_force_host_platform_device_count=4'

import jax  # noqa: E402

import research  # noqa: E402, F401

jax.config.update('jax_numpy_rank_promotion', 'raise')
