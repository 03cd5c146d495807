"""The container image: built from the Dockerfile as it is, started as docs/hosting.md says, and looked at.

`.ci/image` (`python -m benchmarks.image`, where the tools are already there) prints its size and how long it takes to
start, and fails where the container is not healthy, a browser is not shown the snapshot's first comparison, anything
but /data can be written to, it runs with more rights than said, or does not end when it is asked to. Nothing that was
made is left. Exit code 75: nothing on this machine can build it, which is no pass.
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from benchmarks.builders import Builder, NoBuilderError, builder
from benchmarks.serving import CHROME, CHROME_FLAGS

NOT_BUILT = 75
NEW_NETWORK = 0x40000000  # CLONE_NEWNET

RIGHTS = """
import json, os
def status(process):
    return dict(line.split(":", 1) for line in open(f"/proc/{process}/status").read().splitlines())
writable = []
for folder, below, _ in os.walk("/"):
    if folder in ("/data", "/dev", "/proc", "/sys"):
        below.clear()
    elif os.access(folder, os.W_OK):
        writable.append(folder)
own = status("self")
print(json.dumps({
    "user": os.getuid(),
    "capable": any(int(own[mask], 16) for mask in ("CapPrm", "CapEff", "CapBnd")),
    "gains": int(own["NoNewPrivs"]) == 0,
    "writable": writable,
    "data": os.access("/data", os.W_OK),
    "memory": int(status(1)["VmRSS"].split()[0]) * 1024,
}))
"""
"""What a process in the container may do, and where it may write; what the kernel mounts there is left out."""


class ImageError(Exception):
    """The image does not do what docs/hosting.md says of it."""


@contextmanager
def container(build: Builder, tag: str) -> Iterator[tuple[str, float]]:
    """A container that runs as docs/hosting.md says, and when it was asked for, on the monotonic clock."""
    rights = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
    started = time.monotonic()
    name = build("run", "--detach", *rights, *build.run_options, tag)
    try:
        yield name, started
    except Exception:
        subprocess.run([*build.command, "logs", name], check=False)
        raise
    finally:
        subprocess.run([*build.command, "rm", "--force", "--volumes", name], stdout=subprocess.DEVNULL, check=False)


@contextmanager
def reached(build: Builder, name: str) -> Iterator[str]:
    """The container's address, in its own network where it has no port of this machine."""
    if not build.joins_network:
        yield f"http://{build('port', name, '8501/tcp').splitlines()[0]}"
        return
    process = build("inspect", "--format", "{{.State.Pid}}", name)
    with Path("/proc/self/ns/net").open() as ours, Path(f"/proc/{process}/ns/net").open() as theirs:
        _join(theirs.fileno())
        try:
            yield "http://127.0.0.1:8501"
        finally:
            _join(ours.fileno())


def _join(network: int) -> None:
    """This thread, and what it starts from now on, sees that network."""
    if ctypes.CDLL(None, use_errno=True).setns(network, NEW_NETWORK) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def healthy_after(url: str, started: float, patience: float = 60) -> float:
    """Seconds from the start until the health check is answered."""
    while time.monotonic() < started + patience:
        try:
            with urllib.request.urlopen(f"{url}/_stcore/health", timeout=2) as reply:
                if reply.status == 200:
                    return time.monotonic() - started
        except OSError:
            time.sleep(0.05)
    raise ImageError(f"It is not healthy after {patience:.0f} s.")


def first_visit(url: str) -> float:
    """Seconds until a browser that was never here has drawn the snapshot's first comparison."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROME, args=CHROME_FLAGS)
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        complaints: list[str] = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        asked = time.monotonic()
        page.goto(f"{url}/compare")
        page.get_by_text("Activation intensity (nats)").first.wait_for(timeout=60_000)
        page.locator(".js-plotly-plot .main-svg").first.wait_for(timeout=60_000)
        took = time.monotonic() - asked
        if complaints or page.locator("[data-testid='stException']").count():
            raise ImageError(f"The first page complains: {complaints or page.inner_text('body')}")
        browser.close()
    return took


def rights(build: Builder, name: str, user: str) -> dict[str, Any]:
    """What a user may do in the container (`RIGHTS`)."""
    found: dict[str, Any] = json.loads(build("exec", "--user", user, name, "python", "-c", RIGHTS))
    return found


def check_rights(build: Builder, name: str) -> int:
    """Fail where the container may do more than it should; bytes that its server holds."""
    own = build("inspect", "--format", "{{.Config.User}}", name)
    for user in (own, "root"):  # root owns most of it, and is kept out by the read-only file system alone
        found = rights(build, name, user)
        if user == own and found["user"] != 1000:
            raise ImageError(f"It runs as user {found['user']}, and not as 1000.")
        if found["writable"]:
            raise ImageError(f"{user} may write to {found['writable']}.")
        if found["capable"] or found["gains"]:
            raise ImageError(f"{user} has capabilities, or may gain some: {found}.")
        if user == own and not found["data"]:
            raise ImageError("Its user cannot write to /data.")
    memory: int = found["memory"]
    return memory


def check_health_command(build: Builder, name: str) -> None:
    """Run what the Dockerfile says under HEALTHCHECK. Errors: `subprocess.CalledProcessError`."""
    kind, *command = json.loads(build("inspect", "--format", "{{json .Config.Healthcheck.Test}}", name))
    if kind != "CMD":
        raise ImageError("The image has no HEALTHCHECK that is a command.")
    build("exec", name, *command)


def stopped_after(build: Builder, name: str, patience: int = 30) -> float:
    """Seconds from SIGTERM until it has ended of itself."""
    asked = time.monotonic()
    build("stop", "--time", str(patience), name)
    took = time.monotonic() - asked
    code = build("inspect", "--format", "{{.State.ExitCode}}", name)
    if code not in ("0", "143"):
        raise ImageError(f"Asked to end, it ended with code {code} after {took:.0f} s.")
    return took


def measure(build: Builder) -> None:
    """Build, start and look; print what was found."""
    tag = f"rl-circuit-explorer-{os.getpid()}"
    try:
        begun = time.monotonic()
        build.build(tag)
        built = time.monotonic() - begun
        size = int(build("image", "inspect", "--format", "{{.Size}}", tag))
        with container(build, tag) as (name, started):
            with reached(build, name) as url:
                healthy = healthy_after(url, started)
                page = first_visit(url)
            check_health_command(build, name)
            memory = check_rights(build, name)
            stopped = stopped_after(build, name)
    finally:
        subprocess.run([*build.command, "rmi", "--force", tag], stdout=subprocess.DEVNULL, check=False)
    print(f"built on           {build.base}")
    print(f"built in           {built:7.0f} s")
    print(f"size               {size / 1e9:7.2f} GB")
    print(f"healthy after      {healthy:7.1f} s")
    print(f"first comparison   {page:7.1f} s")
    print(f"memory             {memory / 2**20:7.0f} MiB")
    print(f"stopped after      {stopped:7.1f} s")


def main() -> int:
    """Print what was measured."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that what was made is removed
    if not CHROME or not Path(CHROME).exists():
        print("The image's first page cannot be looked at: there is no Chromium.", file=sys.stderr)
        return NOT_BUILT
    try:
        with builder() as found:
            measure(found)
    except NoBuilderError as error:
        print(f"\n*** NOT BUILT: {error} ***\n", file=sys.stderr)
        return NOT_BUILT
    except ImageError as error:
        print(f"\n*** {error} ***\n", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
