"""What is asked: `sets` loads questions, `templates` makes prompts of them, `grading` judges the answers."""

from probing.questions.grading import GRADERS, grade, is_right
from probing.questions.sets import VERDICTS, Question, digest, load_questions
from probing.questions.templates import CHAT, TEMPLATES, Prompt, check_template, encode, prompt_for

__all__ = [
    "CHAT",
    "GRADERS",
    "TEMPLATES",
    "VERDICTS",
    "Prompt",
    "Question",
    "check_template",
    "digest",
    "encode",
    "grade",
    "is_right",
    "load_questions",
    "prompt_for",
]
