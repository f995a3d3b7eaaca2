"""Sagas: the runner, and what each workflow does."""
