"""The report of a study: statistics, tables, figures and pages from its records alone, without jax."""
