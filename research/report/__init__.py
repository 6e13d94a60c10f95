"""What is told: records on disk become summary, tables, figures and pages. Reads records alone and needs no jax."""
