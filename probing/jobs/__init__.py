"""The queue and its workers: `plan` says what a job is and what it will make, `job` walks through its stages.

`stages` are those of answers and scores, as values that pickle; `measuring` has those of `tasks`, which are what may be
asked for beside scores. A `crew` does stages, in this process or on a Ray `cluster`, at a `bench` that has the models;
several workers (`worker`, kept going by `supervisor`) may share a job, as many as there are `places`.
"""
