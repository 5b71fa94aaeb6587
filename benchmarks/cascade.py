"""The `cascade.toml` of a service that is measured: one upstream is both of its models."""

HEAD = """
[cascade]
drafter = "small"
verifier = "large"
[simulator]
drafter = "none"
verifier = "none"
[models.none]
provider = "simulator"
input_price = 0
output_price = 0
context = 1
"""
MODEL = """
[models.{name}]
provider = "openai"
endpoint = "{endpoint}"
input_price = 0.15
output_price = 0.60
context = {context}
"""


def toml(endpoint: str, context: int = 100_000) -> str:
    """The file; `endpoint` is the upstream's base URL, `context` the tokens its models take."""
    models = (
        MODEL.format(name=name, endpoint=endpoint, context=context) for name in ("small", "large")
    )
    return HEAD + "".join(models)
