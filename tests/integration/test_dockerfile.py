"""The image's build steps, carried out in a folder: they work, and what they make is the program, for every role."""

import os
import re
import shutil
import sysconfig
from pathlib import Path

import pytest

from tests.fakes.dockerfile import Image, steps_of

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = ROOT / "ops/Dockerfile"


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    # What the package depends on is not downloaded again: it comes from the environment of the tests.
    quick = {
        "PIP_NO_DEPS": "1",
        "PIP_NO_BUILD_ISOLATION": "0",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PYTHONPATH": sysconfig.get_path("purelib"),
        "HOME": os.environ.get("HOME", "/"),
    }
    made = Image(ROOT, tmp_path_factory.mktemp("image"), quick)
    made.build(DOCKERFILE)
    # The environment was moved from its stage to the image, where an absolute path in a script would not be found.
    for script in (made.root / "opt/mailq/bin").iterdir():
        if script.is_file() and not script.is_symlink():
            text = script.read_bytes()
            script.write_bytes(text.replace(bytes(made.stages["build"]), bytes(made.root)))
    (packages,) = (made.root / "opt/mailq/lib").glob("python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return made


def test_the_image_runs_a_worker_as_nobody_special(image: Image) -> None:
    assert (["mailq", "worker", "--processes", "1"], "10001") == (image.command, image.user)
    assert "Deliver mail until stopped" in image.run([*image.command, "--help"])


@pytest.mark.parametrize("role", ["migrate", "metrics", "flower", "sink", "send"])
def test_the_image_serves_every_role(image: Image, role: str) -> None:
    assert f"Usage: mailq {role}" in image.run(["mailq", role, "--help"])


def test_the_program_in_the_image_is_the_one_that_was_copied_there(image: Image, tmp_path: Path) -> None:
    place = image.run(["python", "-c", "import mailq.queue.schema as s; print(s.migrations_home())"]).strip()
    assert str(image.root) in place
    assert place.endswith("mailq/_migrations")


def test_the_versions_are_those_of_the_lock(image: Image) -> None:
    pinned = (image.stages["build"] / "tmp/constraints.txt").read_text(encoding="utf-8")
    assert {"celery", "flower", "psycopg", "psycopg-binary", "redis", "sqlalchemy"} <= set(
        re.findall(r"^([\w-]+)==", pinned, re.MULTILINE)
    )


def test_neither_secrets_nor_tests_get_into_the_build(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name in (
        "ops/secrets/database_url",
        "tests/test_x.py",
        ".env",
        ".git/config",
        "mailq/__pycache__/x.pyc",
        "mailq/x.py",
    ):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text("x")
    shutil.copy(ROOT / ".dockerignore", source)
    made = Image(source, tmp_path / "image", {})
    for word, rest in list(steps_of(DOCKERFILE.read_text(encoding="utf-8")))[:3]:
        getattr(made, f"do_{word.lower()}")(rest)
    copied = [str(path.relative_to(made.root / "src")) for path in (made.root / "src").rglob("*") if path.is_file()]
    assert [".dockerignore", "mailq/x.py"] == sorted(copied)
