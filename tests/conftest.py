"""Every test runs on 4 host devices, with silent broadcasting refused and the same examples each time."""

import os

os.environ['XLA_FLAGS'] = (
    os.environ.get('XLA_FLAGS', '')
    + ' --xla_force_host_platform_device_count=4'
    # Where cores are few and busy, the last of four devices may come late to a sum: by itself XLA ends the process after 40 s.
    + ' --xla_cpu_collective_call_terminate_timeout_seconds=600'
)

import hypothesis  # noqa: E402
import jax  # noqa: E402

import research  # noqa: E402, F401

jax.config.update('jax_numpy_rank_promotion', 'raise')

hypothesis.settings.register_profile('repeatable', derandomize=True, deadline=None)
hypothesis.settings.load_profile('repeatable')
