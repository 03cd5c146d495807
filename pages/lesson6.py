"""Lesson 6: find your own."""

from functools import partial

from dashboard.lessons import exercises, frame

frame.show(
    6,
    {
        "exercise: edge": partial(exercises.show, exercises.EDGE),
        "exercise: block": partial(exercises.show, exercises.BLOCK),
    },
    lambda: None,
)
