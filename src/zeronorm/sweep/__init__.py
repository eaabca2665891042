"""A sweep around Hydra's jobs: its plan, its checks, its workers, its display, its parent run in
the store."""
