"""What goes into the container image, and what must not."""

from fnmatch import fnmatch
from pathlib import Path

import pytest

from benchmarks.builders import NoBuilderError, builder, pip_settings
from tests.conftest import ROOT


def _lines(name: str) -> list[str]:
    return (ROOT / name).read_text().split()


@pytest.mark.parametrize("ignored", _lines(".gitignore"))
def test_what_git_leaves_out_the_image_leaves_out(ignored: str) -> None:
    """Stores, somebody's own pairs, and above all their secrets."""
    assert any(fnmatch(ignored.strip("/"), line.removeprefix("**/")) for line in _lines(".dockerignore"))


def test_the_builds_pip_finds_what_pip_finds_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheels, index = tmp_path / "wheels", tmp_path / "index" / "simple"
    wheels.mkdir()
    index.mkdir(parents=True)
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    private = "https://someone:word@index.example/simple"  # pragma: allowlist secret
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", f"file://{index} {private}")
    volumes = pip_settings(tmp_path)
    assert f"--volume={wheels}:{wheels}:ro" in volumes
    assert f"--volume={index.parent}:{index.parent}:ro" in volumes, "its files lie beside it"
    settings = tmp_path / "pip.conf"
    assert f"--volume={settings}:/etc/pip.conf:ro" in volumes
    assert f"find-links = {wheels}" in settings.read_text()
    assert "someone:word" in settings.read_text()
    assert settings.stat().st_mode & 0o077 == 0
    assert not any("someone" in volume for volume in volumes)


def test_a_machine_without_a_builder_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(NoBuilderError, match="No Docker answers"), builder():
        pass
