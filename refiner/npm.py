"""Files out of npm packages: JavaScript that a page needs comes from there, pinned and checked, and is not kept in this
repository.

A package is downloaded as data with the machine's own npm; nothing of it is installed or run. What was downloaded is kept in
`wheels.cache_folder`.
"""

import io
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from refiner.errors import UserError
from refiner.wheels import Unavailable, cache_folder, check_sha256, keep

_TIMEOUT_S = 600
_INSIDE = "package/"  # what every path in an npm package begins with


@dataclass(frozen=True, slots=True)
class NpmPackage:
    """One version of a package, as it was released."""

    name: str
    version: str
    sha256: str  # of the .tgz

    @property
    def requirement(self) -> str:
        return f"{self.name}@{self.version}"

    @property
    def file(self) -> str:
        """As `npm pack` calls it."""
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"


# MediaPipe in the browser: WebAssembly and its loader. Apache-2.0.
TASKS_VISION = NpmPackage(
    "@mediapipe/tasks-vision", "1.1.0", "46fc3d3d13fa5de631915929d045be2f74bb32e909d7a5b3a322b28976f54165"
)


def read_package(package: NpmPackage, archive: str | Path | None = None, cache: Path | None = None) -> dict[str, bytes]:
    """The files of a package.

    Args:
        package: which.
        archive: its `.tgz`, where it was fetched elsewhere; by default the cache's, or npm's.
        cache: folder to keep it in; else as `wheels.cache_folder` has it.

    Returns:
        Path inside the package -> content.

    Raises:
        UserError: there is no npm, no registry within reach has the package, or it is not what was released.
    """
    path = Path(archive) if archive else (cache or cache_folder()) / package.file
    try:
        content = path.read_bytes()
    except OSError as error:
        if archive:
            raise UserError(
                f"{path} cannot be read ({error.strerror}): give the .tgz of {package.requirement}"
            ) from None
        content = _packed(package)
    try:
        check_sha256(content, package.sha256, str(path) if archive else package.requirement)
    except Unavailable as error:
        raise UserError(f"{error}: fetch it anew with 'npm pack {package.requirement}'") from None
    if not path.exists():
        keep(path, content)
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as packed:
        members = [member for member in packed.getmembers() if member.isfile()]
        files = {member.name.removeprefix(_INSIDE): packed.extractfile(member) for member in members}
        return {name: file.read() for name, file in files.items() if file is not None}


def _packed(package: NpmPackage) -> bytes:
    """What npm downloads."""
    elsewhere = f"fetch it elsewhere with 'npm pack {package.requirement}' and name the file"
    if shutil.which("npm") is None:
        raise UserError(f"npm, which fetches {package.requirement}, is not installed: install Node.js, or {elsewhere}")
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", "--silent", "--ignore-scripts", "--pack-destination", folder, package.requirement]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, cwd=folder)
        except subprocess.TimeoutExpired:
            raise UserError(f"'npm pack {package.requirement}' took over {_TIMEOUT_S} s: {elsewhere}") from None
        file = Path(folder, package.file)
        if done.returncode or not file.exists():
            last = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "no package")
            raise UserError(f"'npm pack {package.requirement}' failed ({last.strip()}): {elsewhere}")
        return file.read_bytes()
