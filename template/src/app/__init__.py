"""An LLM cascade behind HTTP: a cheap drafter answers, an expensive verifier only when it must."""
