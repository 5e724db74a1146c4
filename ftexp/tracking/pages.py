"""Addresses of MLflow's pages. Without the last part, MLflow 3.17 shows its pages for language models."""

from __future__ import annotations

from ftexp.config.uri import without_credentials

PAGES_FOR_TRAINING = "workflowType=machine_learning"


def is_server(uri: str) -> bool:
    """Whether a store has pages: it is a server, not a database."""
    return uri.startswith(("http://", "https://"))


def experiment_page(server: str, experiment_id: str) -> str:
    """The address of the runs of an experiment, and of the charts that compare them."""
    return f"{_root(server)}/#/experiments/{experiment_id}?{PAGES_FOR_TRAINING}"


def run_page(server: str, experiment_id: str, run_id: str) -> str:
    """The address of one run."""
    return f"{_root(server)}/#/experiments/{experiment_id}/runs/{run_id}?{PAGES_FOR_TRAINING}"


def _root(server: str) -> str:
    return without_credentials(server).rstrip("/")
