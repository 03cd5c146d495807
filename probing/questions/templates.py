"""Prompts: the paper's templates by name, the tokenizer's own chat template, or a string of one's own."""

from typing import Any

from probing.errors import QuestionError
from probing.questions.sets import Question

CHAT = "chat"
"""The template that comes with the tokenizer, the question being the user's turn."""

TEMPLATES = {
    "plain": "{q}",
    "deepseek-math": (
        "User: {q}\nPlease reason step by step, and put your final answer within \\boxed{}.\n\nAssistant:"
    ),
    "mistral": "[INST] {q}[/INST]",
    "qwen25-math-cot": (
        "<|im_start|>system\nPlease reason step by step, and put your final answer within \\boxed{}.<|im_end|>\n"
        "<|im_start|>user\n{q}<|im_end|>\n<|im_start|>assistant\n"
    ),
}
"""Prompt templates by name; `{q}` stands for the question."""


def check_template(template: str) -> None:
    """Raise a QuestionError unless `template` is a name, or a string that says where the question goes."""
    if template != CHAT and template not in TEMPLATES and "{q}" not in template:
        raise QuestionError(
            f"There is no prompt template '{template}'.",
            f"Templates: {', '.join((*TEMPLATES, CHAT))}, or a text of your own with {{q}} where the question goes.",
        )


def prompt_for(question: Question, template: str, tokenizer: Any = None) -> str:
    """The text that a model continues; `chat` needs the model's `tokenizer` (of transformers, which pages never load).

    Raises:
        QuestionError: there is no such template, or the tokenizer has none of its own.
    """
    check_template(template)
    if template != CHAT:
        return TEMPLATES.get(template, template).replace("{q}", question.text)
    if tokenizer is None or not getattr(tokenizer, "chat_template", None):
        raise QuestionError(
            "This model's tokenizer has no chat template.", f"Templates: {', '.join(TEMPLATES)}, or one of your own."
        )
    turn = [{"role": "user", "content": question.text}]
    return str(tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True))
