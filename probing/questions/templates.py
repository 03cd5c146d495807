"""Prompts: the paper's templates by name, the tokenizer's own chat template, or a string of one's own.

Here, and nowhere else, a prompt becomes tokens. A chat is tokenised exactly as the tokenizer's template says. Any other
prompt stands behind what the tokenizer puts in front of a text, unless it begins so itself; what the tokenizer puts
behind a text is left out, for an answer is to follow.
"""

from dataclasses import dataclass
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


@dataclass(frozen=True)
class Prompt:
    """What a model continues: as text, and as the tokens that it is fed."""

    text: str
    tokens: tuple[int, ...]


def check_template(template: str) -> None:
    """Raise a QuestionError unless `template` is a name, or a string that says where the question goes."""
    if template != CHAT and template not in TEMPLATES and "{q}" not in template:
        raise QuestionError(
            f"There is no prompt template '{template}'.",
            f"Templates: {', '.join((*TEMPLATES, CHAT))}, or a text of your own with {{q}} where the question goes.",
        )


def prompt_for(question: Question, template: str, tokenizer: Any) -> Prompt:
    """The prompt of a question, made with the model's `tokenizer` (of transformers, which pages never load).

    Raises:
        QuestionError: there is no such template, the tokenizer has none of its own or fails over it, or nothing is left
            to be fed.
    """
    check_template(template)
    if template == CHAT:
        prompt = _chat(question, tokenizer)
    else:
        text = TEMPLATES.get(template, template).replace("{q}", question.text)
        prompt = Prompt(text, encode(text, tokenizer))
    if not prompt.tokens:
        raise QuestionError(f"The prompt of question '{question.id}' has no tokens.", "Leave the question out.")
    return prompt


def encode(text: str, tokenizer: Any) -> tuple[int, ...]:
    """The tokens of a text that a model is to continue."""
    bare, framed = (tokenizer(text, add_special_tokens=special)["input_ids"] for special in (False, True))
    start = next((i for i in range(len(framed)) if framed[i : i + len(bare)] == bare), 0)
    if start and text.lstrip().startswith(tokenizer.convert_ids_to_tokens(framed[0])):
        start = 0
    return (*framed[:start], *bare)


def _chat(question: Question, tokenizer: Any) -> Prompt:
    if not getattr(tokenizer, "chat_template", None):
        raise QuestionError(
            "This model's tokenizer has no chat template.", f"Templates: {', '.join(TEMPLATES)}, or one of your own."
        )
    turn = [{"role": "user", "content": question.text}]
    try:
        text = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
        tokens = tokenizer.apply_chat_template(turn, tokenize=True, add_generation_prompt=True, return_dict=False)
    except Exception as error:  # a template is a program of its own, and may raise what it likes
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise QuestionError(
            f"The chat template of this model's tokenizer fails: {first[:200].rstrip('.')}.",
            "Write a template instead.",
        ) from error
    return Prompt(text, tuple(tokens))
