"""Edge attributions of language models, before and after fine-tuning."""
