"""PostgreSQL, the truth: named statements grouped by what they are about, one method per transition."""
