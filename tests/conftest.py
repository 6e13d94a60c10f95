"""Every test runs on 4 host devices, with silent broadcasting refused and the same examples each time."""

import os

os.environ['XLA_FLAGS'] = os.environ.get('XLA_FLAGS', '') + ' --xla_force_host_platform_device_count=4'

import hypothesis  # noqa: E402
import jax  # noqa: E402

import research  # noqa: E402, F401

jax.config.update('jax_numpy_rank_promotion', 'raise')

hypothesis.settings.register_profile('repeatable', derandomize=True, deadline=None)
hypothesis.settings.load_profile('repeatable')
