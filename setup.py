"""setup.cfg holds the package; this adds that configs/ comes along, as research/configs/."""

from setuptools import find_namespace_packages, setup

setup(
    packages=[*find_namespace_packages(include=['research*']), 'research.configs'],
    package_dir={'research.configs': 'configs'},
    py_modules=['frugal_jax'],
)
