"""What `make audit` says of what pip-audit finds: only what was looked up can pass."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

SOUND = {"name": "a", "version": "1", "vulns": []}
HOLED = {"name": "b", "version": "2", "vulns": [{"id": "CVE-1", "fix_versions": []}]}
UNKNOWN = {"name": "c", "version": "3", "skip_reason": "Dependency not found on PyPI and could not be audited"}


@pytest.mark.parametrize(
    ("strictly", "packages", "code", "says"),
    [
        (0, [SOUND], 0, ""),
        (1, [SOUND, HOLED], 1, "b 2: CVE-1"),
        (1, [SOUND, UNKNOWN], 1, "1 of 2 packages were looked up"),
        (1, [HOLED, UNKNOWN], 1, "b 2: CVE-1"),
        (1, [UNKNOWN, UNKNOWN], 75, "NOT AUDITED"),
        (1, None, 75, "NOT AUDITED"),  # no connection at all
    ],
)
def test_only_what_was_looked_up_passes_the_audit(
    tmp_path: Path, strictly: int, packages: list[dict] | None, code: int, says: str
) -> None:
    answer = "" if packages is None else json.dumps({"dependencies": packages, "fixes": []})
    program = tmp_path / "pip-audit"
    program.write_text(
        f"#!{sys.executable}\nimport sys\n"
        f"if '--strict' in sys.argv: sys.exit({strictly})\nprint({answer!r})\nsys.exit(1)\n"
    )
    program.chmod(0o700)
    run = subprocess.run([ROOT / ".ci" / "audit", program], capture_output=True, text=True, env=os.environ)
    assert run.returncode == code
    assert says in run.stderr
