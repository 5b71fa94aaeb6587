"""The name and version of the installed distribution, as its `pyproject.toml` gives them."""

from importlib.metadata import entry_points

from app.values import value


@value
class About:
    """What this service calls itself."""

    name: str
    version: str
    summary: str


def about() -> About:
    """Found by the console script, so that no name is written into the code."""
    for script in entry_points(group="console_scripts"):
        if script.value == "app.__main__:main" and script.dist:
            found = script.dist.metadata.json
            name, version, summary = (found.get(key, "") for key in ("name", "version", "summary"))
            return About(str(name), str(version), str(summary))
    return About("service", "0.0.0", "")
