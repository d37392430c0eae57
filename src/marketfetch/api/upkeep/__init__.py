"""Functions that bring the series of a store up to now, fetch them again, or export them."""
