"""How a prompt becomes tokens, whatever kind of tokenizer makes them. A token of these is a letter or a special."""

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from probing.errors import QuestionError
from probing.questions import Question, encode, prompt_for

QUESTION = Question("7", "1+2", "3")

SPECIALS = ["<s>", "</s>", "[gMASK]", "<sop>", "<|user|>", "<|assistant|>"]

KINDS: dict[str, tuple[list[str], list[str]]] = {
    "nothing": ([], []),
    "begins": (["<s>"], []),
    "ends": ([], ["</s>"]),
    "begins and ends": (["<s>"], ["</s>"]),
    "prefix": (["[gMASK]", "<sop>"], []),
}
"""What a tokenizer of each kind puts in front of a text, and behind it."""


def _tokenizer(kind: str, chat: str | None = None) -> PreTrainedTokenizerFast:
    front, back = KINDS[kind]
    vocabulary = {token: i for i, token in enumerate([*SPECIALS, *"1+2Q: \n", "?"])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    made.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    made.add_special_tokens(SPECIALS)
    if front or back:
        framed = [(token, vocabulary[token]) for token in (*front, *back)]
        made.post_processor = processors.TemplateProcessing(single=[*front, "$A", *back], special_tokens=framed)
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>", chat_template=chat)


PLAIN = [
    ("nothing", "plain", "1 + 2"),
    ("begins", "plain", "<s> 1 + 2"),
    ("ends", "plain", "1 + 2"),
    ("begins and ends", "plain", "<s> 1 + 2"),
    ("prefix", "plain", "[gMASK] <sop> 1 + 2"),
    ("nothing", "<s>{q}", "<s> 1 + 2"),
    ("begins", "<s>{q}", "<s> 1 + 2"),
    ("begins", "\n<s>{q}", "\n <s> 1 + 2"),
    ("begins", "Q{q}<s>", "<s> Q 1 + 2 <s>"),
    ("begins and ends", "<s>{q}", "<s> 1 + 2"),
    ("begins and ends", "{q}</s>", "<s> 1 + 2 </s>"),
    ("ends", "{q}</s>", "1 + 2 </s>"),
    ("prefix", "[gMASK]<sop>{q}", "[gMASK] <sop> 1 + 2"),
    ("prefix", "<|user|>{q}<|assistant|>", "[gMASK] <sop> <|user|> 1 + 2 <|assistant|>"),
]

TURN = "<|user|>{{ messages[0]['content'] }}{% if add_generation_prompt %}<|assistant|>{% endif %}"

CHATS = [
    *((kind, TURN, "<|user|> 1 + 2 <|assistant|>") for kind in KINDS),
    *((kind, "{{ bos_token }}" + TURN, "<s> <|user|> 1 + 2 <|assistant|>") for kind in KINDS),
    ("prefix", "[gMASK]<sop>" + TURN, "[gMASK] <sop> <|user|> 1 + 2 <|assistant|>"),
    ("begins", "\n{{ bos_token }}" + TURN, "\n <s> <|user|> 1 + 2 <|assistant|>"),
    ("begins and ends", TURN + "</s>", "<|user|> 1 + 2 <|assistant|> </s>"),
]


@pytest.mark.parametrize(("kind", "template", "tokens"), PLAIN)
def test_a_prompt_stands_once_behind_what_its_tokenizer_puts_in_front_and_before_nothing(
    kind, template, tokens
) -> None:
    tokenizer = _tokenizer(kind)
    prompt = prompt_for(QUESTION, template, tokenizer)
    assert tokenizer.convert_ids_to_tokens(prompt.tokens) == tokens.split(" ")
    assert prompt.text == ("1+2" if template == "plain" else template.replace("{q}", "1+2"))


@pytest.mark.parametrize(("kind", "chat", "tokens"), CHATS)
def test_a_chat_is_what_the_tokenizers_template_makes_of_it(kind, chat, tokens) -> None:
    tokenizer = _tokenizer(kind, chat)
    prompt = prompt_for(QUESTION, "chat", tokenizer)
    assert tokenizer.convert_ids_to_tokens(prompt.tokens) == tokens.split(" ")
    assert prompt.text == "".join(tokens.split(" "))
    turn = [{"role": "user", "content": "1+2"}]
    exact = tokenizer.apply_chat_template(turn, tokenize=True, add_generation_prompt=True, return_dict=False)
    assert list(prompt.tokens) == exact


def test_words_that_are_joined_to_a_mark_in_front_are_found_behind_the_beginning() -> None:
    made = Tokenizer(models.WordLevel({"<s>": 0, "</s>": 1, "▁1+2": 2, "▁=": 3, "?": 4}, unk_token="?"))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.add_special_tokens(["<s>", "</s>"])
    made.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>")
    assert encode("1+2 =", tokenizer) == (0, 2, 3)


def test_a_tokenizer_written_in_python_ends_no_prompt_either() -> None:
    tokenizer = ByT5Tokenizer()
    assert tokenizer("1+2")["input_ids"][-1] == tokenizer.eos_token_id
    assert encode("1+2", tokenizer) == tuple(byte + 3 for byte in b"1+2")  # its ids are the bytes behind three specials


@pytest.mark.parametrize(
    ("chat", "sentence"),
    [
        (None, "has no chat template"),
        ("{{ raise_exception('a system message is needed') }}", "fails: a system message is needed"),
        ("{% if %}", "fails: "),
        ("{{ messages[3].content }}", "fails: "),
        ("{% if false %}x{% endif %}", "'7' has no tokens"),
    ],
)
def test_a_chat_template_that_does_not_work_is_a_sentence(chat: str | None, sentence: str) -> None:
    with pytest.raises(QuestionError, match=sentence):
        prompt_for(QUESTION, "chat", _tokenizer("begins", chat))


def test_a_prompt_of_nothing_is_refused_by_the_name_of_its_question() -> None:
    with pytest.raises(QuestionError, match="question 'empty' has no tokens"):
        prompt_for(Question("empty", "", "3"), "plain", _tokenizer("ends"))
