"""What builds and runs the container image here: Docker, or Podman in a folder that is removed afterwards.

Docker is taken where it answers and the Dockerfile's base can be had. Else root's Podman builds; where no registry is
reached, on a base that debootstrap makes of Debian's packages, with Python where the official image has it.
"""

import ast
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.serving import ROOT
from probing.errors import PersonError

PROXIES = tuple(name for low in ("http_proxy", "https_proxy", "no_proxy") for name in (low, low.upper()))
"""Build arguments that every builder knows and leaves out of the image."""


class NoBuilderError(PersonError):
    """Nothing on this machine can build an image."""


@dataclass(frozen=True)
class Builder:
    """How images are built and containers run; `base` is what the Dockerfile's base comes from."""

    command: tuple[str, ...]
    base: str
    build_options: tuple[str, ...] = ()
    run_options: tuple[str, ...] = ()
    joins_network: bool = False
    """Whether a container is reached in its own network, which leads nowhere else, not at a port of ours."""

    def __call__(self, *arguments: str) -> str:
        """What a command of the builder prints. Errors: `subprocess.CalledProcessError`."""
        return subprocess.run([*self.command, *arguments], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()

    def build(self, tag: str) -> None:
        """Build the Dockerfile as it is; what the build says goes to stdout."""
        given = [part for name in PROXIES if name in os.environ for part in ("--build-arg", name)]
        _run([*self.command, "build", *self.build_options, *given, "--tag", tag, "."])


@contextmanager
def builder() -> Iterator[Builder]:
    """The builder of this machine, for as long as it is needed. Errors: `NoBuilderError`."""
    wanted = _base_of(ROOT / "Dockerfile")
    docker = ("docker",)
    if shutil.which("docker") and _works([*docker, "version"]):
        had = _works([*docker, "image", "inspect", wanted])
        if had or _works([*docker, "pull", wanted]):
            try:
                yield Builder(docker, wanted, run_options=("--publish", "127.0.0.1::8501"))
            finally:
                if not had:
                    _works([*docker, "rmi", wanted])
            return
    if os.geteuid() != 0 or not shutil.which("podman"):
        raise NoBuilderError("No Docker answers, and there is no Podman that root may run.", "Install one of them.")
    with _folder() as folder:
        yield _podman(wanted, folder)


def _podman(wanted: str, folder: Path) -> Builder:
    # Debian's crun refuses a machine that has both versions of cgroups.
    runtime = ("--runtime", "runc") if shutil.which("runc") else ()
    # Without systemd nobody runs the health check, which is said at each start, unless it is not asked to.
    settings = ("env", "DISABLE_HC_SYSTEMD=true", f"TMPDIR={folder}")
    command = (*settings, "podman", "--root", str(folder / "storage"), "--runroot", str(folder / "run"), *runtime)
    full = wanted if "/" in wanted else f"docker.io/library/{wanted}"
    base = wanted
    if not _works([*command, "pull", full], seconds=120):
        if not shutil.which("debootstrap"):
            raise NoBuilderError(f"{wanted} cannot be had, and there is no debootstrap to make it.", "Install it.")
        _bootstrap(folder / "base", re.search(r"\d+\.\d+", wanted))
        with subprocess.Popen(["tar", "-C", folder / "base", "-c", "."], stdout=subprocess.PIPE) as packed:
            subprocess.run([*command, "import", "--quiet", "-", full], stdin=packed.stdout, check=True)
        shutil.rmtree(folder / "base")
        base = "a base made by debootstrap"
    build = ("--isolation=chroot", "--format=docker", "--pull=never", "--network=host", *pip_settings(folder))
    # No network needs no firewall's rules; limits below this machine's need no right to raise them.
    run = ("--network=none", "--read-only-tmpfs=false", "--ulimit=nofile=1024:1024", "--ulimit=nproc=4096:4096")
    return Builder(command, base, build, run, joins_network=True)


def _bootstrap(folder: Path, python: re.Match[str] | None) -> None:
    """A root file system like that of python:3.11-slim: Debian 12 and its Python, called from /usr/local/bin."""
    if python is None or python[0] != "3.11":
        raise NoBuilderError("Debian 12 has Python 3.11, and the Dockerfile asks for another.", "Use a registry.")
    packages = "ca-certificates,netbase,tzdata,python3-venv"
    _run(["debootstrap", "--variant=minbase", f"--include={packages}", "bookworm", str(folder)])
    _run(["chroot", str(folder), "python3", "-m", "venv", "--copies", "/usr/local"])
    for spare in ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/man", "usr/share/locale"):
        shutil.rmtree(folder / spare)


def pip_settings(folder: Path) -> list[str]:
    """Volumes through which pip finds in the build what it finds here: its settings, and the local files they name.

    A volume is no part of the image, so neither an index's password nor a certificate gets into it.
    """
    sections: dict[str, dict[str, str]] = {}
    listed = subprocess.run([ROOT / ".venv/bin/pip", "config", "list"], capture_output=True, text=True, check=True)
    for line in sorted(listed.stdout.splitlines(), key=lambda line: line.startswith(":env:")):  # which overrides files
        key, _, value = line.partition("=")
        section, _, name = key.rpartition(".")
        sections.setdefault("global" if section == ":env:" else section, {})[name] = ast.literal_eval(value)
    settings = folder / "pip.conf"
    settings.touch(mode=0o600)
    for section, values in sections.items():
        with settings.open("a") as file:
            file.write(f"[{section}]\n")
            file.writelines(f"{name} = {value.replace(chr(10), chr(10) + '    ')}\n" for name, value in values.items())
    mounted = {settings: Path("/etc/pip.conf")}
    for word in (word for values in sections.values() for value in values.values() for word in value.split()):
        path = Path(word.removeprefix("file://"))
        if path.is_absolute() and path.exists():
            path = path.parent if word.startswith("file://") else path  # an index names files beside itself
            mounted[path] = path
    return [f"--volume={here}:{there}:ro" for here, there in mounted.items()]


@contextmanager
def _folder() -> Iterator[Path]:
    """A folder for gigabytes, removed with all that containers have mounted in it."""
    folder = Path(tempfile.mkdtemp(prefix="image-", dir="/var/tmp"))  # not in memory, as /tmp may be
    try:
        yield folder
    finally:
        mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
        for mount in reversed([mount for mount in mounts if mount.startswith(f"{folder}/")]):
            subprocess.run(["umount", "--lazy", mount], check=False)
        shutil.rmtree(folder)


def _base_of(dockerfile: Path) -> str:
    return next(line.split()[1] for line in dockerfile.read_text().splitlines() if line.startswith("FROM "))


def _run(command: Sequence[str]) -> None:
    """Run a command in the repository; when we are stopped, all that it has started ends with it."""
    with subprocess.Popen(command, cwd=ROOT, start_new_session=True) as process:
        try:
            code = process.wait()
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    if code != 0:
        raise subprocess.CalledProcessError(code, command)


def _works(command: Sequence[str], seconds: float | None = None) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=seconds).returncode == 0
    except subprocess.TimeoutExpired:
        return False
