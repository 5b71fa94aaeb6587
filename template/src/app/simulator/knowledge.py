"""What the simulated models know: written down, not learned.

Draft texts avoid words such as "may" and "often": the cascade reads them as doubt.
"""

from app.values import value


@value
class Topic:
    """Something a plain question names: "What is AI?". `names` are lower case."""

    names: tuple[str, ...]
    short: str
    """What the small model says."""
    more: str = ""
    """What the large model adds."""


@value
class Lesson:
    """An answer to a question that has a word beginning with each of `stems`, in any order."""

    stems: tuple[str, ...]
    text: str
    hard: bool = True
    """Whether only the large model knows it."""


TOPICS = (
    Topic(
        ("ai", "artificial intelligence"),
        "AI, or artificial intelligence, is the field of building computer systems that do tasks "
        "we associate with human thinking. Examples are understanding language, recognising "
        "images and making decisions.",
        "Most of today's AI is machine learning: instead of following hand-written rules, a "
        "program finds patterns in examples and applies them to new cases.",
    ),
    Topic(
        ("machine learning", "ml"),
        "Machine learning (ML) is a way of programming by example: an algorithm finds patterns in "
        "data and uses them to predict new cases. A spam filter that learns from marked e-mails "
        "is one example.",
        "Its main kinds are supervised learning from labelled data, unsupervised learning from "
        "raw data, and reinforcement learning from rewards.",
    ),
    Topic(
        ("neural network", "neural networks"),
        "A neural network is a function made of many simple connected units, called neurons. "
        "Neural networks learn by adjusting how much each neuron weighs its inputs.",
    ),
    Topic(
        ("llm", "llms", "large language model", "large language models"),
        "A large language model (LLM) is a neural network trained on huge amounts of text to "
        "predict the next token. That skill lets it answer questions, write, translate and "
        "program.",
        "Bigger models answer harder questions but cost more per token, which is why a cascade "
        "asks a small one first.",
    ),
    Topic(
        ("cascade", "llm cascade", "model cascade", "cascadeflow"),
        "A cascade asks a small, cheap model first and keeps its draft when the draft is good "
        "enough. Otherwise a large model answers instead, so easy questions are cheap and hard "
        "ones are still answered well.",
        "In cascadeflow the small model is the drafter and the large one the verifier; "
        "confidence, alignment with the question and the shape of the draft decide.",
    ),
    Topic(
        ("token", "tokens"),
        "A token is a piece of text that a language model reads or writes at once: a short word, "
        "part of a long word, or a punctuation mark. In English, 100 tokens are about 75 words.",
        "Providers bill per token, with input and output tokens at different prices.",
    ),
    Topic(
        ("quantum computing", "quantum computer", "quantum computers"),
        "Quantum computing uses qubits, which hold a combination of 0 and 1 at the same time, in "
        "place of ordinary bits. By letting combinations interfere, a quantum computer solves "
        "certain problems far faster than a classical one.",
        "Factoring large numbers and simulating molecules are the best-known examples. Today's "
        "machines are small and noisy, so error correction is the main challenge.",
    ),
    Topic(
        ("python", "python programming language"),
        "Python is a high-level programming language known for its readable syntax. It is used "
        "for web services, data analysis, automation and machine learning.",
        "Guido van Rossum released it in 1991. Its large standard library and ecosystem make it a "
        "good first language and a common choice for AI work.",
    ),
    Topic(
        ("javascript", "js"),
        "JavaScript is the programming language of web browsers, where it makes pages "
        "interactive. With Node.js it also runs on servers.",
    ),
    Topic(
        ("fastapi",),
        "FastAPI is a Python web framework for building APIs with type hints. It validates "
        "requests with Pydantic, runs asynchronously and writes the OpenAPI documentation by "
        "itself.",
        "The service that you are talking to is built with it: open /docs to see that "
        "documentation.",
    ),
    Topic(
        ("kubernetes", "k8s"),
        "Kubernetes is a system that runs containers on a group of machines. You declare the "
        "state you want, such as three copies of a service, and Kubernetes starts, restarts and "
        "moves containers to keep it.",
        "Its main objects are pods, deployments and services. It also handles rolling updates and "
        "scaling.",
    ),
    Topic(
        ("docker",),
        "Docker is a tool for packaging a program with everything it needs into an image. The "
        "image runs as an isolated container, the same way on each machine.",
        "Images are described in a Dockerfile, built in layers and shared through registries.",
    ),
    Topic(
        ("api", "apis", "application programming interface"),
        "An API, or application programming interface, is the set of calls through which one "
        "program uses another. A web API takes HTTP requests and answers with data, as JSON for "
        "example.",
    ),
    Topic(
        ("json",),
        "JSON is a text format for structured data. It has objects, arrays, strings, numbers, "
        'true, false and null, as in {"name": "Ada", "age": 36}.',
    ),
    Topic(
        ("sql",),
        "SQL is the language for asking questions of relational databases. A query such as SELECT "
        "name FROM users says what data you want, and the database works out how to get it.",
    ),
    Topic(
        ("git",),
        "Git is a version control system. It records snapshots of a project as commits, lets "
        "people work on branches and merges their work together.",
    ),
    Topic(
        ("recursion",),
        "Recursion is when a function calls itself on a smaller part of the problem until it "
        "reaches a case it can answer directly. For example, the factorial of 5 is 5 times the "
        "factorial of 4.",
    ),
    Topic(
        ("photosynthesis",),
        "Photosynthesis is how plants make sugar from carbon dioxide and water with the energy of "
        "sunlight. Oxygen is released along the way.",
        "It happens in the chloroplasts, whose green chlorophyll absorbs the light.",
    ),
    Topic(
        ("gravity",),
        "Gravity is the attraction between masses. It pulls objects to the ground at about 9.8 "
        "m/s² near the surface of the Earth and keeps planets in their orbits.",
    ),
    Topic(
        ("black hole", "black holes"),
        "A black hole is a region of space whose gravity is so strong that even light stays "
        "inside. Massive stars collapse into black holes at the end of their lives.",
    ),
    Topic(("capital of france",), "The capital of France is Paris."),
    Topic(("capital of japan",), "The capital of Japan is Tokyo."),
    Topic(("2+2", "2 + 2", "2 plus 2"), "2+2 = 4"),
    Topic(
        ("largest planet", "biggest planet"),
        "Jupiter is the largest planet in our solar system, about 11 times as wide as the Earth.",
    ),
    Topic(
        ("wrote hamlet", "shakespeare", "william shakespeare"),
        "William Shakespeare wrote Hamlet, Macbeth and Romeo and Juliet around the year 1600.",
    ),
)

LESSONS = (
    Lesson(
        ("compar|differ|versus|vs|better|choose", "python", "javascript"),
        "Python and JavaScript are both dynamic languages, but they grew up in different places. "
        "Python favours readable code and leads in data work, automation and machine learning, "
        "whereas JavaScript runs in each browser and leads in user interfaces. Choose JavaScript "
        "to share code with the front end, and Python when the service is close to data or models.",
    ),
    Lesson(
        ("compar|differ|versus|vs|better|choose", "sql", "nosql"),
        "SQL databases keep data in tables with a fixed schema and give strong transactions, while "
        "NoSQL databases give up part of that for flexible documents or easy distribution. Choose "
        "SQL when the data is related and must stay consistent; choose NoSQL when its shape "
        "changes fast or one machine is too small for it. The trade-off is where the complexity "
        "lives: in the database, or in your code.",
    ),
    Lesson(
        ("design|build", "url", "shorten"),
        "A URL shortener maps a short code to a long address and redirects. Number the addresses "
        "and write the number in base 62: seven characters are enough for 3.5 trillion of them. "
        "Keep code and address in a key-value store, with a cache in front, because reads outweigh "
        "writes a hundred to one. Answer with 302 to count clicks, or 301 to let browsers cache. "
        "Then limit creation by client and check targets against a blocklist.",
    ),
    Lesson(
        ("why", "sky", "blue"),
        "The sky is blue because air scatters short wavelengths of sunlight far more than long "
        "ones. This is Rayleigh scattering: its strength grows with the fourth power of the "
        "frequency, so blue light reaches your eye from all directions. At sunset the light "
        "crosses more air, and the blue is gone before it arrives.",
    ),
    Lesson(
        ("prov|proof|why", "root", "2|two", "irrational"),
        "Suppose that the square root of 2 were a fraction p/q in lowest terms. Then p² = 2q², so "
        "p² is even, and therefore p is even: p = 2k. Then 4k² = 2q², so q² = 2k² and q is even as "
        "well. Thus both are even, which contradicts lowest terms. Therefore the square root of 2 "
        "is irrational.",
    ),
    Lesson(
        ("python", "revers", "string"),
        "In Python, a function to reverse a string is one slice:\n\n```python\ndef reverse(text: "
        "str) -> str:\n    return text[::-1]\n```\n\nThe slice walks the string from its end to "
        "its start, one character at a time.",
        hard=False,
    ),
)
