"""Answers by an inference server: any that speaks OpenAI's completions (vLLM, SGLang, llama.cpp, `transformers serve`).

`wire` asks, many questions at a time and again where a server fails; `tokens` makes of what came back the tokens that
the model said, or nothing where that cannot be known; `served` is both for one side of a pair; `agreement` lets the
model itself say of some answers whether it would have given them.
"""

ANSWERED_BY = "answered by"
"""Under which name the provenance of served answers says by what; what else is known of them follows it."""
