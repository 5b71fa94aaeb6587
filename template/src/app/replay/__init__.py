"""A team's own prompts through the cascade: what it would save, and which drafts it would reject.

`read` the prompts, `run` them, keep the `results`, make a `report`; `table`, `sheet` and `html`
show it. Prompts and answers are in the files that this writes for its user, in no log.
"""
