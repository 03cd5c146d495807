"""The queue and the worker: `plan` says what a job is and what it will make, `worker` does it."""
