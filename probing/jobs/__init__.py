"""The queue and the worker: `plan` says what a job is and what it will make, `worker` does it.

`tasks` are what may be asked for beside scores, and `measuring` is how they are done.
"""
