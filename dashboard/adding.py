"""A pair of one's own, added in the browser: what is typed is looked at at once, and saved where it is offered at once.

Only on one's own machine, and for the admin of a hosted server: what is typed names places on the server. There nothing
can be uploaded, and sentences leave out in which folders things lie.
"""

import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import streamlit as st

from dashboard import roles, runs
from dashboard.service import is_hosted, public
from dashboard.words import as_text
from probing import own_pairs
from probing.checkpoints import look
from probing.errors import PersonError, QuestionError
from probing.jobs.plan import Spec
from probing.pairs import QuestionSet, load_registry, own_path
from probing.questions import CHAT, GRADERS, TEMPLATES, check_template, load_questions

MOST_UPLOADED = 20
"""Megabytes of a file of questions."""

_OWN = "a text of my own"

_REGISTERED, _FILE, _UPLOAD = "registered", "a file on this machine", "upload"


def may_add() -> bool:
    """Whether this person may add pairs: those who use their own machine, and the admin."""
    return roles.person() in ("local", "admin")


@dataclass
class Draft:
    """A pair as it is being typed."""

    pair: dict[str, Any]
    questions: dict[str, Any] | None = None
    """The fields of a question set that it alone names."""
    uploaded: bytes | None = None
    """What the file of its questions is to hold."""
    refused: bool = False
    """Whether something stands against it, which has been said; what has not been typed yet does not."""

    @property
    def is_complete(self) -> bool:
        """Whether all that it needs has been typed."""
        return all(self.pair[name] for name in ("title", "base", "tuned", "algorithm", "kind", "questions"))

    def refuse(self, error: PersonError) -> None:
        """Say what stands against it, below what was typed last."""
        self.refused = True
        st.caption(f":red[:material/error: {as_text(public(str(error)))}]")

    def placed(self, folder: Path) -> dict[str, Any] | None:
        """Its question set, with what was uploaded written into a folder."""
        if self.questions is None or self.uploaded is None:
            return self.questions
        folder.mkdir(exist_ok=True)
        path = folder / f"{own_pairs.named(self.pair['title'])}{Path(self.questions['file']).suffix}"
        path.write_bytes(self.uploaded)
        return self.questions | {"file": str(path)}


def form() -> Draft:
    """The controls of a new pair, and what they say; below each stands what was found."""
    left, right = st.columns(2)
    title = left.text_input("Title", key="add_title", placeholder="My GRPO", max_chars=60).strip()
    draft = Draft({"title": title})
    algorithm, kind = right.columns(2)
    draft.pair["algorithm"] = algorithm.text_input("Algorithm", "GRPO", key="add_algorithm", max_chars=40).strip()
    draft.pair["kind"] = kind.text_input("Kind", "online RL", key="add_kind", max_chars=40).strip()
    sides = (("base", "Base model"), ("tuned", "Tuned model"))
    for column, (side, words) in zip(st.columns(2), sides, strict=True):
        with column:
            draft.pair[side] = _model(draft, side, words)
    with st.container(border=True):
        _questions(draft)
    left, right = st.columns([3, 1])
    with left:
        draft.pair["template"] = _template(draft)
    draft.pair["max_new_tokens"] = int(
        right.number_input("Longest answer", 1, 32_768, 256, key="add_longest", help="In tokens.")
    )
    if draft.is_complete:
        try:
            own_pairs.checked(draft.pair, draft.questions)
        except PersonError as error:
            draft.refuse(error)
    return draft


def _model(draft: Draft, side: str, words: str) -> str:
    """The control of one side's model; what is here is named by its whole path."""
    name = st.text_input(
        words, key=f"add_{side}", placeholder="owner/model, or a folder", max_chars=500,
        help="A hub id, a folder with weights as safetensors, a GGUF file, or a LoRA adapter, which names its base.",
    ).strip()  # fmt: skip
    if not name:
        return name
    try:
        found = look(name)
    except PersonError as error:
        draft.refuse(error)
        return name
    after = "; the forecast below asks the hub for it" if found == "a hub id" else ""
    st.caption(f":material/check: {as_text(public(found))}{after}")
    return name if found == "a hub id" or name.startswith("package:") else _whole(name)


def _whole(path: str) -> str:
    """The whole path of something on this machine."""
    found = Path(path)
    with suppress(RuntimeError):  # there is no such user
        found = found.expanduser()
    return str(found.absolute())


def _questions(draft: Draft) -> None:
    """The controls of what both models are asked."""
    registry = load_registry()
    sources = [_REGISTERED, _FILE, *([] if is_hosted() else [_UPLOAD])]
    source = st.segmented_control("Questions", sources, default=_REGISTERED, required=True, key="add_source")
    if source in (None, _REGISTERED):
        name = st.selectbox(
            "Question set", list(registry.questions), format_func=lambda n: registry.questions[n].title, key="add_set",
            label_visibility="collapsed",
        )  # fmt: skip
        draft.pair["questions"] = [name]
        return
    draft.pair["questions"] = []
    path = _uploaded(draft) if source == _UPLOAD else st.text_input("File", key="add_file", max_chars=500).strip()
    grading, *columns = st.columns(4)
    fields = {
        "title": f"{draft.pair['title']} questions",
        "file": _whole(path) if path else "",
        "grading": grading.selectbox(
            "Grading", list(GRADERS), 1, key="add_grading", help="How an answer is held against the reference."
        ),
    }
    for column, name, usual in zip(columns, ("id", "question", "answer"), ("id", "question", "answer"), strict=True):
        fields[name] = column.text_input(f"Column of the {name}", usual, key=f"add_{name}", max_chars=100).strip()
    if not path:
        return
    draft.questions = fields
    try:
        count = _count(fields, draft.uploaded)
    except PersonError as error:
        draft.refuse(error)
        return
    st.caption(f":material/check: {count:,} question{'s' * (count != 1)}")
    if draft.pair["title"]:
        draft.pair["questions"] = [own_pairs.named(fields["title"])]


def _count(fields: dict[str, Any], uploaded: bytes | None) -> int:
    """How many questions a set has, whose file may not be written yet.

    Raises:
        QuestionError: it cannot be read, or a line is wrong.
    """
    if uploaded is None:
        return len(load_questions(QuestionSet(name="own", **fields)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / Path(fields["file"]).name
        path.write_bytes(uploaded)
        try:
            return len(load_questions(QuestionSet(name="own", **fields | {"file": path})))
        except QuestionError as error:
            raise QuestionError(error.what.replace(f"{folder}/", ""), error.remedy) from error


def _uploaded(draft: Draft) -> str:
    """The name of a file that was uploaded, which the draft then holds."""
    upload = st.file_uploader(
        "File of questions", type=["jsonl", "parquet"], key="add_upload", max_upload_size=MOST_UPLOADED
    )
    if upload is None:
        return ""
    draft.uploaded = upload.getvalue()
    return str(upload.name)


def _template(draft: Draft) -> str:
    """The control of what stands around a question."""
    name = st.selectbox(
        "Template", [*TEMPLATES, CHAT, _OWN], key="add_template",
        help="plain: the question alone. chat: the tokenizer's own template, the question being the user's turn.",
    )  # fmt: skip
    if name != _OWN:
        return str(name)
    text = st.text_area("Text with {q} where the question goes", "{q}", key="add_text", max_chars=10_000)
    try:
        check_template(text)
    except PersonError as error:
        draft.refuse(error)
    return text


def show_forecast(draft: Draft) -> None:
    """What comparing the pair would take: both models are looked at, on the hub too, but for their weights."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            text, name = own_pairs.checked(draft.pair, draft.placed(Path(folder)))
        except PersonError as error:
            st.error(as_text(public(str(error))), icon=":material/error:")
            return
        trial = Path(folder) / "pairs.toml"
        trial.write_text(text, encoding="utf-8")
        questions = own_pairs.named(draft.questions["title"]) if draft.questions else draft.pair["questions"][0]
        runs.show_forecast(Spec(name, questions), PROBING_OWN_PAIRS=str(trial))


def save(draft: Draft) -> None:
    """Add the pair, and look at it from now on; called before the page is drawn again."""
    try:
        own_pairs.checked(draft.pair, draft.questions)
        name = own_pairs.add(draft.pair, draft.placed(own_path().with_name("questions-own")))
    except (PersonError, OSError) as error:
        st.session_state["add_said"] = str(error)
        return
    st.session_state.update(pair=name, add_title="")
    st.toast(f"{draft.pair['title']} is there, in the sidebar too.", icon=":material/check:")


def own_ones() -> None:
    """One's own pairs, each with a button that takes it out of the file."""
    pairs = load_registry().pairs
    names = [name for name in own_pairs.content()["pairs"] if name in pairs]
    if not names:
        return
    st.subheader("Your pairs")
    st.caption(f"In {as_text(public(str(own_path())))}. What was computed of a pair stays in the store when it goes.")
    for name in names:
        words, button = st.columns([5, 1], vertical_alignment="center")
        words.markdown(f"**{as_text(pairs[name].title)}** {as_text(public(pairs[name].arrow))}")
        button.button("Remove", key=f"remove-{name}", icon=":material/delete:", on_click=_remove, args=(name,))


def _remove(name: str) -> None:
    try:
        own_pairs.remove(name)
    except PersonError as error:
        st.session_state["add_said"] = str(error)
    if st.session_state.get("pair") == name:
        del st.session_state["pair"]
