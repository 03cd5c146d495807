"""How long answers take in plain batches and by transformers' continuous batching, and whether they are the same ones.

    python -m benchmarks.answers            # 200 word problems, SmolLM2
    python -m benchmarks.answers --quick    # 16

Both are greedy, in float32 on the CPU, on one thread, so that the seconds of processor time that are printed are the
work that it is, however busy the machine. Continuous batching knows end tokens only: where a pair's answers end with a
text, it goes on to the longest length, and is cut then.

All 200 answers are equal, and continuous batching takes 153.9 s of processor time where plain batches take 105.9 s
(0.69 times as fast, two cores). So jobs answer in plain batches.
"""

import argparse
import time
from collections.abc import Callable

import torch
from transformers import ContinuousBatchingConfig, GenerationConfig

from probing.checkpoints import find
from probing.models import answer, end_tokens, ended, load_model, load_tokenizer
from probing.pairs import load_registry
from probing.questions import load_questions, prompt_for

BATCH = 64
"""As many as `probing.fitting` takes at most."""

Tokens = list[tuple[int, ...]]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--pair", default="smollm2-grpo")
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    registry = load_registry()
    pair = registry.pair(arguments.pair)
    questions = load_questions(registry.question_set(pair.questions[0]))[: 16 if arguments.quick else 200]
    checkpoint = find(pair.base)
    model, tokenizer = load_model(checkpoint, torch.device("cpu"), torch.float32), load_tokenizer(checkpoint)
    torch.set_num_threads(1)
    prompts = [prompt_for(question, pair.template, tokenizer).tokens for question in questions]
    ends, longest = sorted(end_tokens(model, tokenizer)), pair.max_new_tokens

    def plain(stop: str | None) -> Tokens:
        batches = [prompts[i : i + BATCH] for i in range(0, len(prompts), BATCH)]
        return [tokens for batch in batches for tokens, _ in answer(model, tokenizer, batch, longest, stop)]

    def continuous() -> Tokens:
        config = GenerationConfig(
            eos_token_id=ends, pad_token_id=tokenizer.pad_token_id or ends[0], max_new_tokens=longest, do_sample=False
        )
        paged = ContinuousBatchingConfig(page_size=32, num_blocks=256, max_batch_tokens=512, use_cuda_graph=False)
        found = model.generate_batch([list(p) for p in prompts], config, continuous_batching_config=paged,
                                     progress_bar=False)  # fmt: skip
        said = {tuple(one.prompt_ids): one.generated_tokens for one in found.values()}
        return [tuple(said[tuple(prompt)]) for prompt in prompts]

    answer(model, tokenizer, prompts[:2], 2)
    print(f"{pair.name}: {len(prompts)} questions, answers of at most {longest} tokens")
    wall, busy, paged = _timed(continuous)
    print(f"continuous batching      {busy:7.1f} s of processor time, {wall:7.1f} s")
    for name, stop in (("plain, to its end token", None), ("plain, as jobs do it", pair.stop)):
        wall, took, said = _timed(lambda stop=stop: plain(stop))  # type: ignore[misc]
        cut = [ended(tokens, model, tokenizer, longest, stop) for tokens in paged]
        equal = sum(one is not None and one[0] == other for one, other in zip(cut, said, strict=True))
        print(f"{name:24} {took:7.1f} s of processor time, {wall:7.1f} s: {took / busy:.2f} times, {equal} equal")


def _timed(do: Callable[[], Tokens]) -> tuple[float, float, Tokens]:
    """Seconds, seconds of processor time, and what came of it."""
    wall, busy = time.monotonic(), time.process_time()
    found = do()
    return time.monotonic() - wall, time.process_time() - busy, found


if __name__ == "__main__":
    main()
